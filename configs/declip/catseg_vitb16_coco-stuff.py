# CAT-Seg on EVA02-CLIP-B/16 distilled by DeCLIP: q-q plus k-k attention in the last block without a
# scale, no residual, no FFN, unit-norm features. Published mIoU (DeCLIP, CVPR 2025): A-847 15.3,
# PC-459 21.4, A-150 36.3, PC-59 60.6, VOC-20 96.6, VOC-21 81.3; on EVA02-CLIP before distillation
# 11.9, 17.6, 30.4, 52.3, 94.2, 74.2. Not run here.
# The weights are DeCLIP's released file, or a run of distill_vitb16_eva_dinov2_coco.py with
#   --cfg-options model.image_encoder.init_cfg.checkpoint=work_dirs/.../iter_44358.pth
#       model.text_encoder.init_cfg.checkpoint=merged2b_s8b_b131k
_base_ = ["../catseg/catseg_vitb16_coco-stuff.py"]

clip = dict(
    arch="EVA02-B-16",
    init_cfg=dict(
        type="Pretrained", checkpoint="checkpoints/DeCLIP_EVA-B_DINOv2-B_csa_0.05_2.0.pt"
    ),
)
# DeCLIP tunes q and v of the image blocks, and q, k and v of the text blocks.
model = dict(
    image_encoder=dict(
        type="DeCLIPViT", readout=dict(_delete_=True, attention=("qq", "kk"), scale="none"), **clip
    ),
    text_encoder=dict(trainable=("q", "k", "v"), **clip),
)
work_dir = "work_dirs/declip_catseg_vitb16_coco-stuff"  # configs/catseg has a file of this name
