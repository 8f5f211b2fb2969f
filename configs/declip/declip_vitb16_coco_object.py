# DeCLIP, EVA02-CLIP ViT-B/16, COCO-Object (80 things and background). Not run here.
# Published: 36.4 mIoU (DeCLIP, CVPR 2025, tables 5 and 10).
# Class names: the list of ProxyCLIP. Inferred: the released reader splits class files at "; ",
# which is the format of ProxyCLIP's lists and not of SCLIP's; the paper names none.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object.py",
    "../_base_/models/declip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="proxyclip_coco_object", prob_thd=0.2))
