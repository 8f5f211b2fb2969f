# F-ViT on EVA02-CLIP-L/14-336 distilled by DeCLIP, OV-COCO.
# Published AP50 (DeCLIP, CVPR 2025): novel 46.2, base 65.2, all 60.3. Not run here.
# See fvit_declip_vitb16_ov-coco.py for what is open in it.
_base_ = [
    "../_base_/models/fvit_vitl14-336.py",
    "../_base_/datasets/ov_coco_896.py",
    "../_base_/schedules/fvit_3e.py",
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
    test_cfg=dict(rcnn=dict(vlm_temperature=45.0)),
)
