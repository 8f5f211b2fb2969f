# OV-DQUO on EVA02-CLIP-B/16 refined by CLIPSelf, OV-COCO.
# Nobody published this detector. Not run here.
_base_ = [
    "../_base_/models/ovdquo_vitb16.py",
    "../_base_/datasets/ov_coco_detr_1024.py",
    "../_base_/schedules/ovdquo_30e.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitb16_coco_clipself_proposals.pt"))
    )
)
