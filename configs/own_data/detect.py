# F-ViT on your boxes: tested as somebody trained it (on OV-COCO, say), or trained on yours.
_base_ = [
    "../_base_/models/fvit_vitb16.py",
    "../_base_/schedules/fvit_3e.py",
    "detection.py",
]
model = dict(
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=640,  # pads all to image_size
    )
)
train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, end=250),
    dict(type="CosineAnnealingLR", T_max=12, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(save_best="coco/bbox_mAP_50", max_keep_ckpts=2))
