# OV-DQUO on EVA02-CLIP-L/14-336 distilled by DeCLIP, OV-LVIS.
# Published box AP (DeCLIP, CVPR 2025): rare 41.5, all 34.6. Not run here.
# See ovdquo_declip_vitb16_ov-coco.py for what is open in it.
_base_ = [
    "../_base_/models/ovdquo_vitl14-336_lvis.py",
    "../_base_/datasets/ov_lvis_detr_896.py",
    "../_base_/schedules/ovdquo_35e.py",
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
    bbox_head=dict(text_encoder=dict(**clip)),
    test_cfg=dict(temperature=50.0),
)
