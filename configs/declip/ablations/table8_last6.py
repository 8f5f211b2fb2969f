# DeCLIP, Table 8: the last 6 blocks are tuned (12: the base). Published mAcc thing / stuff;
# mIoU Context59, ADE: 67.1 / 47.8; 39.0, 22.3. Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
model = dict(student=dict(trainable=("blocks", 6)))
