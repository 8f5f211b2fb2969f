# F-ViT on EVA02-CLIP-L/14-336 refined by CLIPSelf, OV-COCO.
# Published AP50 (CLIPSelf, ICLR 2024): novel 44.3, base 64.1, all 59.0. Not run here.
# Put CLIPSelf's released weights (refined on COCO's region proposals) at the path below. The plain
# EVA02-CLIP is what the base names:
# --cfg-options model.backbone.encoder.init_cfg.checkpoint=merged2b_s6b_b61k
_base_ = [
    "../_base_/models/fvit_vitl14-336.py",
    "../_base_/datasets/ov_coco_896.py",
    "../_base_/schedules/fvit_3e.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitl14_coco_clipself_proposals.pt"))
    )
)
