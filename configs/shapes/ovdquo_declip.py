# OV-DQUO on the distilled tiny CLIP, read out as it was distilled, else as ovdquo.py.
#   --cfg-options model.backbone.encoder.init_cfg.checkpoint=work_dirs/declip_distill/iter_300.pth
# Without it: this readout of the tiny CLIP before distillation.
# Regions are normalised after pooling, as DeCLIP distils them.
_base_ = ["ovdquo.py"]
clip = dict(arch="shapes-tiny", init_cfg=dict(type="Pretrained", checkpoint="shapes"))
model = dict(
    backbone=dict(
        encoder=dict(_delete_=True, type="DeCLIPViT", readout="csa", **clip), normalize="after"
    )
)
