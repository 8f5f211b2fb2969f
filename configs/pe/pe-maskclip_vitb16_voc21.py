# Perception Encoder ViT-B/16 with MaskCLIP's readout,
# PASCAL VOC 2012 with background (21 classes). Not run here.
# No threshold of the background is published: 0, tune it on training photos.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21.py",
    "../_base_/models/pe_vitb16.py",
]
model = dict(backbone=dict(readout="maskclip"), decode_head=dict(vocabulary="voc21", prob_thd=0.0))
