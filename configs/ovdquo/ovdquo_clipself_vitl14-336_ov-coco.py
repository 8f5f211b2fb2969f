# OV-DQUO on EVA02-CLIP-L/14-336 refined by CLIPSelf, OV-COCO.
# Nobody published this detector. Not run here.
_base_ = [
    "../_base_/models/ovdquo_vitl14-336.py",
    "../_base_/datasets/ov_coco_detr_896.py",
    "../_base_/schedules/ovdquo_30e.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitl14_coco_clipself_proposals.pt"))
    )
)
