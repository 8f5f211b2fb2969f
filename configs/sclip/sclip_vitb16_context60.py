# SCLIP, OpenAI ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 30.4 mIoU (SCLIP paper), 31.74 (its code, same protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_sclip.py",
    "../_base_/models/sclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context60", logit_scale=50.0, prob_thd=0.1))
