# MetaCLIP 2 ViT-H/14 (worldwide) compared with class names, nothing trained.
# Windows of 448 px every 224, cosines x 50, as of the others.
# open_clip fetches the tag when weights are loaded; a local file does as well:
# --cfg-options model.backbone.init_cfg.checkpoint=FILE and the same of the text encoder.
# The tokenizer is the file tokenizer.json of facebook/xlm-v-base, which nothing here fetches. Its
# 901,629 words are 3.7 GB of the text tower: keep the classes as a file
# (tools/text_embeddings.py, embeddings=FILE) where that is too much.
clip = dict(
    arch="ViT-H-14-worldwide-quickgelu",
    init_cfg=dict(type="Pretrained", checkpoint="metaclip2_worldwide"),
)
model = dict(
    type="OpenVocabSegmentor",
    data_preprocessor=dict(
        type="MixedSizeSegDataPreProcessor",
        mean=[122.771, 116.746, 104.094],
        std=[68.501, 66.632, 70.323],
        bgr_to_rgb=True,
    ),
    backbone=dict(type="CLIPViT", readout="vanilla", **clip),
    decode_head=dict(
        type="CosineSegHead",
        text_encoder=dict(
            type="OpenCLIPTextEncoder",
            tokenizer="checkpoints/xlm-v-base/tokenizer.json",
            **clip,
        ),
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
