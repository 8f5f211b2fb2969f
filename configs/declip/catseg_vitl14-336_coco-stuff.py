# CAT-Seg on EVA02-CLIP-L/14-336 distilled by DeCLIP, see catseg_vitb16_coco-stuff.py. Published
# mIoU (DeCLIP, CVPR 2025): A-847 17.6, PC-459 25.9, A-150 40.7, PC-59 63.9, VOC-20 97.7, VOC-21
# 83.9; before distillation 14.2, 21.3, 34.8, 56.2, 95.8, 80.1. Not run here.
_base_ = ["../catseg/catseg_vitl14-336_coco-stuff.py"]

clip = dict(
    arch="EVA02-L-14-336",
    init_cfg=dict(
        type="Pretrained", checkpoint="checkpoints/DeCLIP_EVA-L_DINOv2-L_csa_0.05_2.0.pt"
    ),
)
model = dict(
    image_encoder=dict(
        type="DeCLIPViT", readout=dict(_delete_=True, attention=("qq", "kk"), scale="none"), **clip
    ),
    text_encoder=dict(trainable=("q", "k", "v"), **clip),
)
work_dir = "work_dirs/declip_catseg_vitl14-336_coco-stuff"
