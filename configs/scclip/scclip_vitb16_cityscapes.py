# SC-CLIP, OpenAI ViT-B/16, Cityscapes (19 classes). Not run here.
# Published: 41.0 mIoU (a secondary source).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes_sclip.py",
    "../_base_/models/scclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="cityscapes"))
