# NACLIP, OpenAI ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 32.2 mIoU (Trident's and ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_sclip.py",
    "../_base_/models/naclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context60", prob_thd=0.1))
