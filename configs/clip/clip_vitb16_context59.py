# CLIP, OpenAI ViT-B/16, PASCAL Context without background (59 classes). Not run here.
# Published: 9.2 mIoU (ClearCLIP paper, its protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59.py",
    "../_base_/models/clip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
