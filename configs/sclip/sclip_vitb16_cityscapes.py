# SCLIP, OpenAI ViT-B/16, Cityscapes (19 classes). Not run here.
# Published: 32.2 mIoU (SCLIP paper), 32.34 (its code, same protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes_sclip.py",
    "../_base_/models/sclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="cityscapes"))
