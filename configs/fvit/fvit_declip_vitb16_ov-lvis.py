# F-ViT on EVA02-CLIP-B/16 distilled by DeCLIP, OV-LVIS.
# Published mask AP (DeCLIP, CVPR 2025): rare 26.8, common 22.4, frequent 29.8, all 26.0. Not run
# here.
# See fvit_declip_vitb16_ov-coco.py for what is open in it.
_base_ = [
    "../_base_/models/fvit_vitb16_lvis.py",
    "../_base_/datasets/ov_lvis.py",
    "../_base_/schedules/fvit_48e.py",
]
clip = dict(
    arch="EVA02-B-16",
    init_cfg=dict(
        type="Pretrained", checkpoint="checkpoints/DeCLIP_EVA-B_DINOv2-B_csa_0.05_2.0.pt"
    ),
)
model = dict(
    backbone=dict(
        encoder=dict(type="DeCLIPViT", readout=dict(attention=("qq", "kk"), scale="none"), **clip)
    ),
    roi_head=dict(bbox_head=dict(text_encoder=dict(**clip))),
    test_cfg=dict(rcnn=dict(vlm_temperature=90.0)),
)
