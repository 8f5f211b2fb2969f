# CAT-Seg's published schedule: AdamW, 80,000 iterations of 4 images (released: 4 GPUs x 1),
# cosine to 0 without warm-up, gradients clipped to a global norm of 0.01. LayerNorm and GroupNorm
# are not decayed, biases are. Both CLIP encoders learn at a hundredth of the rate (2e-6).
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(image_encoder=dict(lr_mult=0.01), text_encoder=dict(lr_mult=0.01)),
    ),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=80000, eta_min=0, by_epoch=False),
]
train_cfg = dict(type="ExactIterBasedTrainLoop", max_iters=80000, val_interval=5000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
