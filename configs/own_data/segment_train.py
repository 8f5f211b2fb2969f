# CAT-Seg trained on your label maps. Tested with other classes it still looks for those.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/catseg_vitb16.py",
    "../_base_/schedules/catseg_80k.py",
    "segmentation.py",
]
iterations = 5000
train_cfg = dict(max_iters=iterations, val_interval=1000)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=iterations, eta_min=0, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=1000, save_best="mIoU"))
