# SCLIP, OpenAI ViT-B/16, ADE20K (150 classes). Not run here.
# Published: 16.1 mIoU (SCLIP paper), 16.45 (its code, same protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k_sclip.py",
    "../_base_/models/sclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
