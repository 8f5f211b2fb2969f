# CLIP, OpenAI ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 7.7 mIoU (ClearCLIP paper, its protocol).
# The threshold that was used is not published: 0, tune it on training photos.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60.py",
    "../_base_/models/clip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context60", prob_thd=0.0))
