# MetaCLIP 2 ViT-H/14 (worldwide) compared with class names, nothing trained.
# Windows of 448 px every 224, cosines x 50, as of the others.
# open_clip fetches the tag when weights are loaded; a local file does as well:
# --cfg-options model.backbone.init_cfg.checkpoint=FILE and the same of the text encoder.
# The tokenizer is the file tokenizer.json of facebook/xlm-v-base, which nothing here fetches. Its
# 901,629 words are 3.7 GB of the text tower: keep the classes as a file
# (tools/text_embeddings.py, embeddings=FILE) where that is too much.
_base_ = "clip_vitb16.py"
clip = dict(
    arch="ViT-H-14-worldwide-quickgelu",
    init_cfg=dict(type="Pretrained", checkpoint="metaclip2_worldwide"),
)
model = dict(
    backbone=dict(readout="vanilla", **clip),
    decode_head=dict(text_encoder=dict(tokenizer="checkpoints/xlm-v-base/tokenizer.json", **clip)),
)
