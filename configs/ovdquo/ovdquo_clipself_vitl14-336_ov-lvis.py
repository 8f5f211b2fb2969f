# OV-DQUO on EVA02-CLIP-L/14-336 refined by CLIPSelf, OV-LVIS.
# Published box AP (OV-DQUO, AAAI 2025): rare 39.3. Not run here.
_base_ = [
    "../_base_/models/ovdquo_vitl14-336_lvis.py",
    "../_base_/datasets/ov_lvis_detr_896.py",
    "../_base_/schedules/ovdquo_35e.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitl14_lvis_clipself_patches.pt"))
    )
)
