# SCLIP, OpenAI ViT-B/16, PASCAL Context without background (59 classes). Not run here.
# Published: 34.2 mIoU (SCLIP paper), 34.46 (its code, same protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_sclip.py",
    "../_base_/models/sclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
