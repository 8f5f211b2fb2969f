# DeCLIP's ViT-B/16 (EVA02-CLIP distilled with DINOv2-B) compared with class names: scaled
# query-query plus key-key attention in the last block, no residual, no FFN, unit-norm features.
# The protocol of its segmentation code: windows of 336 px every 112, padded symmetrically to whole
# patches, cosines x 40, softmax over all names, the best synonym of a class, 80 templates.
# The file of the authors (image and text tower) must be at this path, or is named by
# --cfg-options model.backbone.init_cfg.checkpoint=FILE
#     model.decode_head.text_encoder.init_cfg.checkpoint=FILE
# A student distilled here (EVA02-CLIP's own text, attention without scale as it was trained):
#   --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/.../iter_44358.pth
#     model.backbone.readout.scale=none
#     model.decode_head.text_encoder.init_cfg.checkpoint=merged2b_s8b_b131k
_base_ = "clip_vitb16.py"
clip = dict(
    arch="EVA02-B-16",
    init_cfg=dict(
        type="Pretrained", checkpoint="checkpoints/DeCLIP_evab_dinov2B_csa_560_0.25_seg.pt"
    ),
)
model = dict(
    backbone=dict(type="DeCLIPViT", readout=dict(attention=("qq", "kk"), scale="sqrt"), **clip),
    decode_head=dict(text_encoder=dict(**clip), logit_scale=40.0),
    test_cfg=dict(crop_size=(336, 336), stride=(112, 112)),
)
