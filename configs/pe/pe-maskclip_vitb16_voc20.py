# Perception Encoder ViT-B/16 with MaskCLIP's readout,
# PASCAL VOC 2012 without background (20 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20.py",
    "../_base_/models/pe_vitb16.py",
]
model = dict(backbone=dict(readout="maskclip"), decode_head=dict(vocabulary="voc20"))
