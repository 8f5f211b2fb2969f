# OpenAI's CLIP ViT-B/16 compared with class names, nothing trained (baseline of ClearCLIP's paper).
# Windows of 448 px every 224, cosines x 50; a benchmark adds its class names and threshold.
# OpenAI's weights need the -quickgelu architectures. open_clip fetches "openai" when weights are
# loaded; a local file does as well: --cfg-options model.backbone.init_cfg.checkpoint=FILE and
# model.decode_head.text_encoder.init_cfg.checkpoint=FILE.
clip = dict(
    arch="ViT-B-16-quickgelu",
    init_cfg=dict(type="Pretrained", checkpoint="openai"),
)
model = dict(
    type="OpenVocabSegmentor",
    data_preprocessor=dict(
        type="MixedSizeSegDataPreProcessor",
        mean=[122.771, 116.746, 104.094],
        std=[68.501, 66.632, 70.323],
        bgr_to_rgb=True,
    ),
    backbone=dict(type="CLIPViT", **clip),
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
