# OV-DQUO's schedule on OV-COCO: AdamW at a constant rate, 30 epochs of batches of 32 (8 GPUs x 4),
# a tenth of the rate for what learns in the backbone (of a ResNet nothing does). Running means of
# the weights (EMA) are tested, from epoch 15 on, and kept.
# With --amp take optim_wrapper.optimizer.eps=1e-6. auto_scale_lr.enable=True scales the rate to
# other batches.
_base_ = "../detection_runtime.py"
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
auto_scale_lr = dict(enable=False, base_batch_size=32)
param_scheduler = []
train_cfg = dict(type="ExactEpochBasedTrainLoop", max_epochs=30, val_begin=15, val_interval=1)
custom_hooks = [
    *_base_.custom_hooks,
    # 0.99996 of the old mean remains at each iteration
    dict(type="EMAHook", momentum=4e-5, update_buffers=True, priority=49),
]
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=1, save_best="coco/novel_ap50", rule="greater"),
)
log_processor = dict(by_epoch=True)
randomness = dict(seed=42)
