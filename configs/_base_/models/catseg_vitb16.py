# CAT-Seg on OpenAI's CLIP ViT-B/16: q and v of both encoders are tuned, 25.1 M parameters in all.
# Facts of the released code: docs/catseg.md.
clip = dict(
    arch="ViT-B-16-quickgelu",
    trainable=("q", "v"),
    init_cfg=dict(type="Pretrained", checkpoint="openai"),
)
model = dict(
    type="CATSeg",
    data_preprocessor=dict(
        type="MixedSizeSegDataPreProcessor",
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.3231630],
        bgr_to_rgb=True,
        size=(384, 384),
        seg_pad_val=255,
    ),
    # Value-only last block with the CLS residual; positions are resized to the 24 x 24 grid.
    image_encoder=dict(type="CLIPViT", readout="catseg", positions="size", **clip),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    templates="catseg",  # "A photo of a {} in the scene"
    clip_size=(384, 384),
    guidance_indices=(3, 7),
    decode_head=dict(
        type="CATSegHead",
        guidance_dims=(256, 128),
        aggregator=dict(
            hidden_dim=128,
            num_layers=2,
            num_heads=4,
            window_size=12,
            guidance_proj_dims=(32, 16),
            decoder_dims=(64, 32),
            pad_len=256,
            max_classes=256,
            train_pool=2,
            test_pool=1,
        ),
        # Ignored and padded pixels count as negatives of every class, as published.
        loss=dict(type="GatheredBCELoss", ignore_as_negative=True),
    ),
    # Reported numbers: 640 x 640, four windows of 384 px every 256 px, and the whole image.
    test_cfg=dict(
        mode="slide_with_global",
        val_mode="whole",
        size=(640, 640),
        crop_size=(384, 384),
        stride=(256, 256),
    ),
)
