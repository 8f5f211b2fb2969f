# SC-CLIP, OpenAI ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 36.8 mIoU (a secondary source).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_sclip.py",
    "../_base_/models/scclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context60", prob_thd=0.15))
