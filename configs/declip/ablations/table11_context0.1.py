# DeCLIP, Table 11: context loss times 0.1 (0.25: the base). Published mAcc thing / stuff;
# mIoU Context59, ADE: 72.4 / 50.6; 37.9, 21.3. Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
model = dict(context_loss=dict(loss_weight=0.1))
