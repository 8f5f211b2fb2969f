# OV-DQUO's schedule on OV-LVIS: as on OV-COCO, with 35 epochs. Its test takes long: every fifth
# epoch from 15 on.
_base_ = "./ovdquo_30e.py"
train_cfg = dict(max_epochs=35, val_interval=5)
default_hooks = dict(checkpoint=dict(save_best="lvis/bbox_APr"))
