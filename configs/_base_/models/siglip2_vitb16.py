# SigLIP 2 ViT-B/16 of 512 px compared with class names, nothing trained.
# The size with the largest table of positions; windows of 448 px every 224, as of the others.
# open_clip fetches the tag when weights are loaded; a local file does as well:
# --cfg-options model.backbone.init_cfg.checkpoint=FILE and the same of the text encoder.
# The tokenizer is the file tokenizer.json of google/siglip2-base-patch16-512, which nothing here
# fetches. Scores are multiplied by the scale of the weights.
clip = dict(
    arch="ViT-B-16-SigLIP2-512",
    init_cfg=dict(type="Pretrained", checkpoint="webli"),
)
model = dict(
    type="OpenVocabSegmentor",
    data_preprocessor=dict(
        type="MixedSizeSegDataPreProcessor",
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
    ),
    backbone=dict(type="CLIPViT", readout="vanilla", **clip),
    decode_head=dict(
        type="CosineSegHead",
        text_encoder=dict(
            type="OpenCLIPTextEncoder",
            tokenizer="checkpoints/siglip2/tokenizer.json",
            **clip,
        ),
        templates="imagenet80",
        logit_scale="file",
    ),
    test_cfg=dict(
        mode="slide",
        crop_size=(448, 448),
        stride=(224, 224),
        window_padding="symmetric",
        window_batch_size=16,
    ),
)
