# OV-DQUO on EVA02-CLIP-B/16 distilled by DeCLIP, OV-LVIS.
# Published box AP (DeCLIP, CVPR 2025): rare 31.0, all 27.7. Not run here.
# See ovdquo_declip_vitb16_ov-coco.py for what is open in it.
_base_ = [
    "../_base_/models/ovdquo_vitb16_lvis.py",
    "../_base_/datasets/ov_lvis_detr_1024.py",
    "../_base_/schedules/ovdquo_35e.py",
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
    bbox_head=dict(text_encoder=dict(**clip)),
    test_cfg=dict(temperature=50.0),
)
