# Region classification of COCO panoptic val2017 by EVA02-CLIP-B/16, S=560. Not run here.
# The encoder is CLIP before any distillation. With DeCLIP weights:
#   --cfg-options model.encoder.init_cfg.checkpoint=FILE
# Q+K attention without a scale as in DeCLIP's released code. Weights of its scripts (q only) take
#   --cfg-options model.encoder.readout.attention="['qq']"
# its paper, and its weights for segmentation,
#   --cfg-options model.encoder.readout.scale=sqrt
# Published, all of DeCLIP-distilled students (thing / stuff mAcc; the paper does not say whether of
# boxes or of masks), DeCLIP (CVPR 2025):
#   Table 11, S=560, weight of the context loss 0.25: 72.2 / 51.3; 0.1: 72.4 / 50.6
#   Table 7, S=1024 (size=1024 below): Q 77.2 / 52.5; K 76.5 / 51.0; Q+K 77.3 / 53.8
# Not distilled, reported by a user of CLIPSelf's evaluation for a model not named (top-1): rois
# 18.2 / 13.7, maskpool 17.4 / 16.3, crops 68.4 / 22.9.
_base_ = ["../_base_/mmengine_runtime.py", "../_base_/datasets/coco_panoptic_regions.py"]
clip = dict(arch="EVA02-B-16", init_cfg=dict(type="Pretrained", checkpoint="merged2b_s8b_b131k"))
model = dict(
    type="RegionClassifier",
    encoder=dict(
        type="CLIPViT",
        readout=dict(attention=("qq", "kk"), scale="none"),
        positions="size",
        **clip,
    ),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    templates="vild63",
)
