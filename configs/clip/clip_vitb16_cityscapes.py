# CLIP, OpenAI ViT-B/16, Cityscapes (19 classes). Not run here.
# Published: 5.5 mIoU (ClearCLIP paper, its protocol).
# Windows at the native 224 px, not overlapping.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/clip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="cityscapes"), test_cfg=dict(crop_size=(224, 224)))
