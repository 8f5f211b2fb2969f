# SCLIP, OpenAI ViT-L/14, PASCAL Context without background (59 classes). Not run here.
# Published: 20.5 mIoU (ClearCLIP paper under its own protocol); the protocol here is
# SCLIP's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_sclip.py",
    "../_base_/models/sclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
