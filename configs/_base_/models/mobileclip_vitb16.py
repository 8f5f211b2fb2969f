# MobileCLIP-B compared with class names, nothing trained. Its weights are for research only.
# Windows of 448 px every 224, cosines x 50, as of the others.
# open_clip fetches the tag when weights are loaded; a local file does as well:
# --cfg-options model.backbone.init_cfg.checkpoint=FILE and the same of the text encoder.
_base_ = "clip_vitb16.py"
clip = dict(
    arch="MobileCLIP-B",
    init_cfg=dict(type="Pretrained", checkpoint="datacompdr"),
)
model = dict(
    data_preprocessor=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
    backbone=dict(readout="vanilla", **clip),
    decode_head=dict(text_encoder=dict(**clip)),
)
