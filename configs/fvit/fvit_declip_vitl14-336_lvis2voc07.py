# F-ViT L/14-336 on DeCLIP's CLIP, trained on OV-LVIS, tested on VOC 2007 as it is:
#   python tools/test.py configs/fvit/fvit_declip_vitl14-336_lvis2voc07.py CHECKPOINT
# No published number. Not run here.
_base_ = [
    "../_base_/detection_runtime.py",
    "../_base_/models/fvit_vitl14-336_transfer.py",
    "../_base_/datasets/transfer_voc07.py",
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
    roi_head=dict(bbox_head=dict(text_encoder=dict(**clip), vocabulary=_base_.vocabulary)),
    test_cfg=dict(rcnn=dict(alpha=0.3, beta=0.3)),
)
