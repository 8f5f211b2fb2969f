# Perception Encoder core ViT-B/16 compared with class names, nothing trained.
# Windows of 448 px every 224, cosines x 50, as of the others.
# open_clip fetches the tag when weights are loaded; a local file does as well:
# --cfg-options model.backbone.init_cfg.checkpoint=FILE and the same of the text encoder.
_base_ = "clip_vitb16.py"
clip = dict(
    arch="PE-Core-B-16",
    init_cfg=dict(type="Pretrained", checkpoint="meta"),
)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(readout="vanilla", **clip),
    decode_head=dict(text_encoder=dict(**clip)),
)
