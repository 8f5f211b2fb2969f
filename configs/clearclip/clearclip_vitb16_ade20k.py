# ClearCLIP, OpenAI ViT-B/16, ADE20K (150 classes). Not run here.
# Published: 16.7 mIoU (ClearCLIP paper, its protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/clearclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
