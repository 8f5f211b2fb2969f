# F-ViT L/14-336 on CLIPSelf's CLIP, trained on OV-LVIS, tested on Objects365 v1 as it is:
#   python tools/test.py configs/fvit/fvit_clipself_vitl14-336_lvis2objects365.py CHECKPOINT
# Published AP, AP50, AP75 (CLIPSelf, ICLR 2024): 19.5, 31.3, 20.7; small, medium, large objects
# 9.7, 23.2, 35.5. Not run here.
_base_ = [
    "../_base_/detection_runtime.py",
    "../_base_/models/fvit_vitl14-336_transfer.py",
    "../_base_/datasets/transfer_objects365.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitl14_lvis_clipself_patches.pt"))
    ),
    roi_head=dict(bbox_head=dict(vocabulary="objects365")),
    test_cfg=dict(rcnn=dict(alpha=0.3, beta=0.3)),
)
