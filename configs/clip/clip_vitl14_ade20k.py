# CLIP, OpenAI ViT-L/14, ADE20K (150 classes). Not run here.
# Published: 1.2 mIoU (ClearCLIP paper, its protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/clip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
