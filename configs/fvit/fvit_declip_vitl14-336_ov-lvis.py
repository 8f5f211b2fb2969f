# F-ViT on EVA02-CLIP-L/14-336 distilled by DeCLIP, OV-LVIS.
# Published mask AP (DeCLIP, CVPR 2025): rare 37.2, common 35.2, frequent 36.5, all 36.0. Not run
# here.
# See fvit_declip_vitb16_ov-coco.py for what is open in it.
_base_ = [
    "../_base_/models/fvit_vitl14-336_lvis.py",
    "../_base_/datasets/ov_lvis_896.py",
    "../_base_/schedules/fvit_48e.py",
]
clip = dict(
    arch="EVA02-L-14-336",
    init_cfg=dict(
        type="Pretrained", checkpoint="checkpoints/DeCLIP_EVA-L_DINOv2-L_csa_0.05_2.0.pt"
    ),
)
model = dict(
    backbone=dict(
        encoder=dict(type="DeCLIPViT", readout=dict(attention=("qq", "kk"), scale="none"), **clip)
    ),
    roi_head=dict(bbox_head=dict(text_encoder=dict(**clip))),
    test_cfg=dict(rcnn=dict(vlm_temperature=90.0)),
)
