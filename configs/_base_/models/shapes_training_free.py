# The tiny CLIP that ships with the package, compared with class names as it is.
clip = dict(arch="shapes-tiny", init_cfg=dict(type="Pretrained", checkpoint="shapes"))
model = dict(
    type="OpenVocabSegmentor",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[122.771, 116.746, 104.094],
        std=[68.501, 66.632, 70.323],
        bgr_to_rgb=True,
    ),
    backbone=dict(type="CLIPViT", **clip),
    decode_head=dict(
        type="CosineSegHead",
        text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
        vocabulary="dataset",
        templates="imagenet80",
    ),
    test_cfg=dict(mode="slide", crop_size=(80, 80), stride=(40, 40), window_batch_size=64),
)
