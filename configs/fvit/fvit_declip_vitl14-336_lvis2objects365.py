# F-ViT L/14-336 on DeCLIP's CLIP, trained on OV-LVIS, tested on Objects365 v1 as it is:
#   python tools/test.py configs/fvit/fvit_declip_vitl14-336_lvis2objects365.py CHECKPOINT
# Published AP, AP50, AP75 (DeCLIP, CVPR 2025): 20.0, 32.2, 21.2; small, medium, large objects
# 10.0, 24.4, 36.7. Not run here.
_base_ = [
    "../_base_/detection_runtime.py",
    "../_base_/models/fvit_vitl14-336_transfer.py",
    "../_base_/datasets/transfer_objects365.py",
]
clip = dict(
    arch="EVA02-L-14-336",
    init_cfg=dict(
        type="Pretrained", checkpoint="checkpoints/DeCLIP_EVA-L_DINOv2-L_csa_0.05_2.0.pt"
    ),
)
model = dict(
    backbone=dict(
        encoder=dict(type="DeCLIPViT", readout=dict(attention=("qq", "kk"), scale="none"), **clip)
    ),
    roi_head=dict(bbox_head=dict(vocabulary="objects365", text_encoder=dict(**clip))),
    test_cfg=dict(rcnn=dict(alpha=0.3, beta=0.3)),
)
