# OV-DQUO L/14-336 on CLIPSelf's CLIP, trained on OV-LVIS, tested on Objects365 v1 as it is:
#   python tools/test.py configs/ovdquo/ovdquo_clipself_vitl14-336_lvis2objects365.py CHECKPOINT
# No number is quoted here. Not run here.
_base_ = [
    "../_base_/detection_runtime.py",
    "../_base_/models/ovdquo_vitl14-336_transfer.py",
    "../_base_/datasets/transfer_objects365.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitl14_lvis_clipself_patches.pt"))
    ),
    bbox_head=dict(vocabulary="objects365"),
)
