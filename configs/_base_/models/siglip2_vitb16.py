# SigLIP 2 ViT-B/16 of 512 px compared with class names, nothing trained.
# The size with the largest table of positions; windows of 448 px every 224, as of the others.
# open_clip fetches the tag when weights are loaded; a local file does as well:
# --cfg-options model.backbone.init_cfg.checkpoint=FILE and the same of the text encoder.
# The tokenizer is the file tokenizer.json of google/siglip2-base-patch16-512, which nothing here
# fetches. Scores are multiplied by the scale of the weights.
_base_ = "clip_vitb16.py"
clip = dict(
    arch="ViT-B-16-SigLIP2-512",
    init_cfg=dict(type="Pretrained", checkpoint="webli"),
)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(readout="vanilla", **clip),
    decode_head=dict(
        text_encoder=dict(tokenizer="checkpoints/siglip2/tokenizer.json", **clip),
        logit_scale="file",
    ),
)
