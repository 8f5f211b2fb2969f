# What DCLIP starts from: the frozen tiny CLIP names the classes of a picture by its embedding.
_base_ = ["../_base_/mmengine_runtime.py", "../_base_/datasets/shapes_multilabel.py"]
clip = dict(arch="shapes-tiny", init_cfg=dict(type="Pretrained", checkpoint="shapes"))
model = dict(
    type="ZeroShotRecognizer",
    encoder=dict(type="CLIPViT", positions="size", **clip),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    templates=("a photo of a {}.",),
)
