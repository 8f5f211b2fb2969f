# DCLIP's zero-shot segmentation with CLIP's RN101: values that attend to values in its only
# attention layer, the projectors of a training on COCO 2014, cosines x 100, one window of 448 px.
# The projectors must be at this path, or are named by
#   --cfg-options model.decode_head.projector=FILE
# As the training saw places: model.backbone.readout=v model.backbone.positions=size
clip = dict(
    arch="RN101-quickgelu",
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
    backbone=dict(type="CLIPResNet", readout="vv", positions="bilinear", **clip),
    decode_head=dict(
        type="CosineSegHead",
        text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
        projector="work_dirs/dclip_rn101_coco14/epoch_50.pth",
        vocabulary="dataset",
        templates="single",
        logit_scale=100.0,
    ),
    test_cfg=dict(mode="whole"),
)
# Photos at 448 x 448, the aspect not kept; labels keep their size.
zs3_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="Resize", scale=(448, 448), keep_ratio=False, interpolation="bicubic", backend="pillow"
    ),
    dict(type="LoadReadableAnnotations"),
    dict(type="PackSegInputs"),
]
zs3_dataset = dict(dataset=dict(pipeline=zs3_pipeline))
