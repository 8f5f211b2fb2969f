# SCLIP, OpenAI ViT-L/14, ADE20K (150 classes). Not run here.
# Published: 7.1 mIoU (ClearCLIP paper under its own protocol); the protocol here is
# SCLIP's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k_sclip.py",
    "../_base_/models/sclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
