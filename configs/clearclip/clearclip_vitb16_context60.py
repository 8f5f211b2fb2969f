# ClearCLIP, OpenAI ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 32.6 mIoU (ClearCLIP paper, its protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60.py",
    "../_base_/models/clearclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context60", prob_thd=0.15))
