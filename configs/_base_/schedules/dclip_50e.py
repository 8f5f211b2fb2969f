# DCLIP's schedule: SGD, 50 epochs of batches of 32, one of warm-up at 1e-5, then a cosine from
# 2e-3 that falls by the epoch; weight decay on everything that learns, the batch norm too.
# DualCoOp, which the code is a fork of, takes 1e-3 on VOC 2007; DCLIP's paper 2e-3 for all.
# Released: fp16 autocast without a gradient scaler (tools/train.py --amp has one).
# The last epoch is what counts here; the reference reports the best epoch on the test images.
_base_ = "../mmengine_runtime.py"
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=2e-3, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = [
    dict(type="ConstantLR", factor=0.005, by_epoch=True, end=2),  # epoch 0; the rate is back at 1
    dict(type="CosineAnnealingLR", T_max=50, eta_min=0, by_epoch=True, begin=1),
]
train_cfg = dict(type="ExactEpochBasedTrainLoop", max_epochs=50, val_interval=5)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=1),
)
custom_hooks = [
    dict(type="VocabularyHook"),
    dict(type="NonFiniteGuard"),
    dict(type="MFIMonitorHook"),  # how alike the class texts are, logged
]
log_processor = dict(by_epoch=True)
