# NACLIP, OpenAI ViT-L/14, ADE20K (150 classes). Not run here.
# Published: 17.3 mIoU (ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k_sclip.py",
    "../_base_/models/naclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
