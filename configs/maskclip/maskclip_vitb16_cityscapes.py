# MaskCLIP, OpenAI ViT-B/16, Cityscapes (19 classes). Not run here.
# Published: 12.6 mIoU (TCL paper under its own protocol, quoted by ClearCLIP); the protocol
# here is ClearCLIP's.
# Windows at the native 224 px, not overlapping.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/maskclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="cityscapes"), test_cfg=dict(crop_size=(224, 224)))
