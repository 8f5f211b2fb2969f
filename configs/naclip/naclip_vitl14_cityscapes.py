# NACLIP, OpenAI ViT-L/14, Cityscapes (19 classes). Not run here.
# Published: 31.4 mIoU (ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes_sclip.py",
    "../_base_/models/naclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="cityscapes"))
