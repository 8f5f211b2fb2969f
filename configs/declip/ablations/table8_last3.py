# DeCLIP, Table 8: the last 3 blocks are tuned (12: the base). Published mAcc thing / stuff;
# mIoU Context59, ADE: 62.7 / 47.0; 38.0, 21.8. Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
model = dict(student=dict(trainable=("blocks", 3)))
