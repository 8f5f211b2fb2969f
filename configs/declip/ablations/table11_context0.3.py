# DeCLIP, Table 11: context loss times 0.3 (0.25: the base). Published mAcc thing / stuff;
# mIoU Context59, ADE: 71.9 / 51.4; 38.7, 21.7. Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
model = dict(context_loss=dict(loss_weight=0.3))
