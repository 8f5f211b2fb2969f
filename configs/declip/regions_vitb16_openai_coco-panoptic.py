# Region classification of COCO panoptic val2017 by OpenAI's CLIP ViT-B/16, S=560. Not run here.
# The encoder is CLIP before any distillation; with DeCLIP weights of this tower:
#   --cfg-options model.encoder.init_cfg.checkpoint=FILE
# DeCLIPViT: Q+K attention with the usual scale, and tokens of length 1 before they are pooled, as
# DeCLIP's released code has it for this tower only. Weights distilled with q only take
#   --cfg-options model.encoder.readout=qq
# Published (DeCLIP, CVPR 2025, Table 12, the distilled student): 65.0 thing / 38.8 stuff mAcc.
_base_ = ["../_base_/mmengine_runtime.py", "../_base_/datasets/coco_panoptic_regions.py"]
clip = dict(arch="ViT-B-16-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(
    type="RegionClassifier",
    encoder=dict(type="DeCLIPViT", **clip),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    templates="vild63",
)
