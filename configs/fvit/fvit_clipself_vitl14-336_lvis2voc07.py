# F-ViT L/14-336 on CLIPSelf's CLIP, trained on OV-LVIS, tested on VOC 2007 as it is:
#   python tools/test.py configs/fvit/fvit_clipself_vitl14-336_lvis2voc07.py CHECKPOINT
# Released as a config, without a published number. Not run here.
_base_ = [
    "../_base_/detection_runtime.py",
    "../_base_/models/fvit_vitl14-336_transfer.py",
    "../_base_/datasets/transfer_voc07.py",
]
model = dict(
    backbone=dict(
        encoder=dict(init_cfg=dict(checkpoint="checkpoints/eva_vitl14_lvis_clipself_patches.pt"))
    ),
    roi_head=dict(bbox_head=dict(vocabulary=_base_.vocabulary)),
    test_cfg=dict(rcnn=dict(alpha=0.3, beta=0.3)),
)
