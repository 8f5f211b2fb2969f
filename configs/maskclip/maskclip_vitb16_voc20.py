# MaskCLIP, OpenAI ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 74.9 mIoU (TCL paper under its own protocol, quoted by ClearCLIP); the protocol
# here is ClearCLIP's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20.py",
    "../_base_/models/maskclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="voc20"))
