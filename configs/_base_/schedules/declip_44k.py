# DeCLIP's released schedule: 6 epochs of COCO train2017 at a total batch of 16 (4 GPUs x 4; the
# paper: 8 x 2), 7,393 iterations each; 1,000 of warm-up, then half a cosine to 0. AdamW with a
# weight decay of 0.1 on matrices, none on vectors. Released: fp16 autocast (tools/train.py --amp).
# The released code never synchronised gradients between GPUs; here DDP does (docs/declip.md).
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, end=1000),
    dict(type="CosineAnnealingLR", T_max=43358, begin=1000, end=44358, by_epoch=False),
]
train_cfg = dict(type="ExactIterBasedTrainLoop", max_iters=44358, val_interval=7393)
distill_hooks = [  # custom_hooks of a run; those of the runtime among them
    dict(type="VocabularyHook"),
    dict(type="NonFiniteGuard"),
    dict(type="ReplacedImagesHook"),
    dict(type="WeightEnsembleHook", alpha=0.7),  # released: 0.7 for B, 0.95 for L
]
