# CAT-Seg with DeCLIP's readout of ViT-B/16: q-q plus k-k attention in the last block, no residual,
# no FFN, unit-norm features. Published mIoU (DeCLIP, CVPR 2025, on EVA02-CLIP-B/16 distilled by
# DeCLIP): A-847 15.3, PC-459 21.4, A-150 36.3, PC-59 60.6, VOC-20 96.6, VOC-21 81.3. Not run here;
# the encoder is OpenAI's tower until the EVA tower is part of the package, so these numbers are
# not to be expected. To start from your DeCLIP weights of this tower:
#   --cfg-options model.image_encoder.init_cfg.checkpoint=declip_vitb16.pt
_base_ = ["../catseg/catseg_vitb16_coco-stuff.py"]

# DeCLIP tunes q and v of the image blocks, and q, k and v of the text blocks.
model = dict(
    image_encoder=dict(type="DeCLIPViT", readout="declip"),
    text_encoder=dict(trainable=("q", "k", "v")),
)
work_dir = "work_dirs/declip_catseg_vitb16_coco-stuff"  # configs/catseg has a file of this name
