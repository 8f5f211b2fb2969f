# CLIP's RN101 names an image as a whole, at its own 224 px: cosines with "a photo of a {}.".
# The dense map (values that attend to values) is read where a config asks for segments.
clip = dict(
    arch="RN101-quickgelu",
    init_cfg=dict(type="Pretrained", checkpoint="openai"),
)
model = dict(
    type="ZeroShotRecognizer",
    encoder=dict(type="CLIPResNet", readout="vv", positions="bilinear", mean_token=False, **clip),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    templates="single",
    image_size=224,
    logit_scale=100.0,
)
