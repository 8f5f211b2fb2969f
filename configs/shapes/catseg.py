# CAT-Seg on the tiny CLIP of ShapeScenes: trained on the base classes, tested on all.
# The published recipe at a hundredth of its size: grid 16 instead of 24, 32 channels instead of
# 128, windows of 8 tokens, a few hundred iterations, and hence ten times the learning rate (a
# hundred times for the encoders) and no clipping to 0.01.
# Measured by make demo: results/shapes_segmentation.json.
_base_ = ["../_base_/default_runtime.py", "../_base_/datasets/shapes.py"]

clip = dict(
    arch="shapes-tiny",
    trainable=("q", "v"),
    init_cfg=dict(type="Pretrained", checkpoint="shapes"),
)
model = dict(
    type="CATSeg",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[122.771, 116.746, 104.094],
        std=[68.501, 66.632, 70.323],
        bgr_to_rgb=True,
        size=(128, 128),
        seg_pad_val=255,
    ),
    image_encoder=dict(type="CLIPViT", readout="catseg", positions="size", **clip),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    clip_size=(128, 128),
    guidance_indices=(0, 2),
    decode_head=dict(
        type="CATSegHead",
        guidance_dims=(32, 16),
        aggregator=dict(
            hidden_dim=32,
            window_size=8,
            guidance_proj_dims=(8, 8),
            decoder_dims=(16, 8),
            pad_len=0,
            recompute="none",
        ),
        # A third of the pixels are of withheld classes. As negatives (the published rule, made for
        # data where nearly every pixel has a label) they would teach the model to reject them.
        loss=dict(type="GatheredBCELoss", ignore_as_negative=False),
    ),
    # The published protocol at this size: four windows and one view of the whole image.
    test_cfg=dict(
        mode="slide_with_global",
        size=(192, 192),
        crop_size=(128, 128),
        stride=(64, 64),
        window_batch_size=20,
    ),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(image_encoder=dict(lr_mult=0.1), text_encoder=dict(lr_mult=0.1)),
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=20),
    dict(type="CosineAnnealingLR", T_max=230, begin=20, end=250, eta_min=0, by_epoch=False),
]
train_cfg = dict(type="ExactIterBasedTrainLoop", max_iters=250, val_interval=250)
