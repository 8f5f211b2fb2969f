# DeCLIP, Table 1, row 1: self-distillation of the content alone. Published mAcc thing/stuff
# 69.5 / 44.6; mIoU Context59 29.4, Cityscapes 25.6. The paper does not say which readout; this is
# the base's. Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
model = dict(context_loss=None, vfms=[])
train_pipeline = _base_.train_pipeline
train_pipeline[1].proxy_sizes = ()  # of DistillViews: nobody looks at them
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
