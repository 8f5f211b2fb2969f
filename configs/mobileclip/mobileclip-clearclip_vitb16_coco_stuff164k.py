# MobileCLIP-B with ClearCLIP's readout, COCO-Stuff 164k (171 classes). Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k.py",
    "../_base_/models/mobileclip_vitb16.py",
]
model = dict(backbone=dict(readout="clearclip"), decode_head=dict(vocabulary="coco_stuff164k"))
