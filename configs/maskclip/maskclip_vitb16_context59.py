# MaskCLIP, OpenAI ViT-B/16, PASCAL Context without background (59 classes). Not run here.
# Published: 26.4 mIoU (TCL paper under its own protocol, quoted by ClearCLIP); the protocol
# here is ClearCLIP's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59.py",
    "../_base_/models/maskclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
