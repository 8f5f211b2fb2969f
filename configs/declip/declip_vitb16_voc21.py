# DeCLIP, EVA02-CLIP ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 59.7 mIoU (DeCLIP, CVPR 2025, tables 5 and 10).
# Class names: the list of ProxyCLIP. Inferred: the released reader splits class files at "; ",
# which is the format of ProxyCLIP's lists and not of SCLIP's; the paper names none.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_declip.py",
    "../_base_/models/declip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="proxyclip_voc21", logit_scale=80.0, prob_thd=0.4))
