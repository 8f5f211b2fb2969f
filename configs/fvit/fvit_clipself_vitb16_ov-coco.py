# F-ViT on EVA02-CLIP-B/16 refined by CLIPSelf, OV-COCO.
# Published AP50 (CLIPSelf, ICLR 2024): novel 37.6, base 54.9, all 50.4. Not run here.
# Put CLIPSelf's released weights (refined on COCO's region proposals) at the path below. The plain
# EVA02-CLIP is what the base names:
# --cfg-options model.backbone.encoder.init_cfg.checkpoint=merged2b_s8b_b131k
_base_ = [
    "../_base_/models/fvit_vitb16.py",
    "../_base_/datasets/ov_coco.py",
    "../_base_/schedules/fvit_3e.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitb16_coco_clipself_proposals.pt"))
    )
)
