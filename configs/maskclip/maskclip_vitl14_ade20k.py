# MaskCLIP, OpenAI ViT-L/14, ADE20K (150 classes). Not run here.
# Published: 6.9 mIoU (ClearCLIP paper, its protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/maskclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
