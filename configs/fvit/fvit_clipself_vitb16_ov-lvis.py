# F-ViT on EVA02-CLIP-B/16 refined by CLIPSelf, OV-LVIS.
# Published mask AP (CLIPSelf, ICLR 2024): rare 25.3, common 21.8, frequent 29.1, all 25.2. Not run
# here.
# Put CLIPSelf's released weights (refined on image patches of LVIS, as the published numbers) at
# the path below. The plain EVA02-CLIP is what the base names:
# --cfg-options model.backbone.encoder.init_cfg.checkpoint=merged2b_s8b_b131k
_base_ = [
    "../_base_/models/fvit_vitb16_lvis.py",
    "../_base_/datasets/ov_lvis.py",
    "../_base_/schedules/fvit_48e.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitb16_lvis_clipself_patches.pt"))
    )
)
