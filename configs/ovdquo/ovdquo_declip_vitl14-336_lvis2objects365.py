# OV-DQUO L/14-336 on DeCLIP's CLIP, trained on OV-LVIS, tested on Objects365 v1 as it is:
#   python tools/test.py configs/ovdquo/ovdquo_declip_vitl14-336_lvis2objects365.py CHECKPOINT
# No number is quoted here. Not run here.
_base_ = [
    "../_base_/detection_runtime.py",
    "../_base_/models/ovdquo_vitl14-336_transfer.py",
    "../_base_/datasets/transfer_objects365.py",
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
    bbox_head=dict(text_encoder=dict(**clip), vocabulary="objects365"),
    test_cfg=dict(temperature=50.0),
)
