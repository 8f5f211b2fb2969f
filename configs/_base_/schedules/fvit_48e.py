# F-ViT's schedule on OV-LVIS: as on OV-COCO, with 48 epochs and two steps; the last epoch counts.
_base_ = "./fvit_3e.py"
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, end=250),
    dict(type="MultiStepLR", milestones=[32, 44], gamma=0.1, by_epoch=True, end=48),
]
train_cfg = dict(max_epochs=48, val_interval=12)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best=None, rule=None))
