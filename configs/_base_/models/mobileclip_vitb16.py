# MobileCLIP-B compared with class names, nothing trained. Its weights are for research only.
# Windows of 448 px every 224, cosines x 50, as of the others.
# open_clip fetches the tag when weights are loaded; a local file does as well:
# --cfg-options model.backbone.init_cfg.checkpoint=FILE and the same of the text encoder.
clip = dict(
    arch="MobileCLIP-B",
    init_cfg=dict(type="Pretrained", checkpoint="datacompdr"),
)
model = dict(
    type="OpenVocabSegmentor",
    data_preprocessor=dict(
        type="MixedSizeSegDataPreProcessor",
        mean=[0.0, 0.0, 0.0],
        std=[255.0, 255.0, 255.0],
        bgr_to_rgb=True,
    ),
    backbone=dict(type="CLIPViT", readout="vanilla", **clip),
    decode_head=dict(
        type="CosineSegHead",
        text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
        templates="imagenet80",
        logit_scale=50.0,
    ),
    test_cfg=dict(
        mode="slide",
        crop_size=(448, 448),
        stride=(224, 224),
        window_padding="symmetric",
        window_batch_size=16,
    ),
)
