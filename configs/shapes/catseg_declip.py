# CAT-Seg on the distilled tiny CLIP, read out as it was distilled, else as catseg.py.
#   --cfg-options model.image_encoder.init_cfg.checkpoint=work_dirs/declip_distill/iter_300.pth
# Without it: this readout of the tiny CLIP before distillation.
_base_ = ["catseg.py"]
model = dict(image_encoder=dict(type="DeCLIPViT", readout="csa"))
