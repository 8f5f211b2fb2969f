# MaskCLIP, OpenAI ViT-B/16, ADE20K (150 classes). Not run here.
# Published: 9.8 mIoU (TCL paper under its own protocol, quoted by ClearCLIP); the protocol
# here is ClearCLIP's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/maskclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
