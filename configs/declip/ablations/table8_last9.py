# DeCLIP, Table 8: the last 9 blocks are tuned (12: the base). Published mAcc thing / stuff;
# mIoU Context59, ADE: 70.7 / 50.5; 39.0, 22.1. Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
model = dict(student=dict(trainable=("blocks", 9)))
