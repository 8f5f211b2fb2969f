# NACLIP, OpenAI ViT-L/14, PASCAL Context (59 classes). Not run here.
# Published: 32.1 mIoU (ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_sclip.py",
    "../_base_/models/naclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
