# SCLIP, OpenAI ViT-L/14, PASCAL Context with background (60 classes). Not run here.
# No published number for this backbone with background.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_sclip.py",
    "../_base_/models/sclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="context60", logit_scale=50.0, prob_thd=0.1))
