# SC-CLIP, OpenAI ViT-B/16, ADE20K (150 classes). Not run here.
# Published: 20.1 mIoU (a secondary source).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k_sclip.py",
    "../_base_/models/scclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
