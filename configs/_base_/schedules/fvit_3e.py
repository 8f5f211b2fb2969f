# F-ViT's schedule on OV-COCO: AdamW, 3 epochs of batches of 64 (8 GPUs x 8), 250 iterations of
# warm-up, fp16 with a fixed loss scale. Longer training overfits the base classes; the best epoch,
# usually the second, is chosen by novel AP50 of val, as published.
# With other batches the rate is scaled to batch / 64. Without a GPU it trains in fp32, and says so.
_base_ = "../detection_runtime.py"
optim_wrapper = dict(
    type="AmpOptimWrapper",
    loss_scale=512.0,
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
auto_scale_lr = dict(enable=True, base_batch_size=64)
param_scheduler = [dict(type="LinearLR", start_factor=0.001, by_epoch=False, end=250)]
train_cfg = dict(type="ExactEpochBasedTrainLoop", max_epochs=3, val_interval=1)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=1, save_best="coco/novel_ap50", rule="greater"),
)
log_processor = dict(by_epoch=True)
