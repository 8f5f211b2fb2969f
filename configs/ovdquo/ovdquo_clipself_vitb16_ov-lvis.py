# OV-DQUO on EVA02-CLIP-B/16 refined by CLIPSelf, OV-LVIS.
# Published box AP (OV-DQUO, AAAI 2025): rare 29.7. Not run here.
# Put CLIPSelf's released weights at the path below. The plain EVA02-CLIP is what the base names:
# --cfg-options model.backbone.encoder.init_cfg.checkpoint=merged2b_s8b_b131k
_base_ = [
    "../_base_/models/ovdquo_vitb16_lvis.py",
    "../_base_/datasets/ov_lvis_detr_1024.py",
    "../_base_/schedules/ovdquo_35e.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitb16_lvis_clipself_patches.pt"))
    )
)
