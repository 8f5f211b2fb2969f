# The regions of ShapeScenes named by the tiny CLIP as it is. Another readout of the last block:
#   --cfg-options model.encoder.readout=csa    (vanilla, maskclip, qq, kk, vv, csa, all, ...)
_base_ = ["../_base_/mmengine_runtime.py", "../_base_/datasets/shapes_regions.py"]
clip = dict(arch="shapes-tiny", init_cfg=dict(type="Pretrained", checkpoint="shapes"))
model = dict(
    type="RegionClassifier",
    encoder=dict(type="DeCLIPViT", readout="qq", **clip),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    templates="vild63",
    regions=("rois", "maskpool", "crops"),
)
