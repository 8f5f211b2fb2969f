# SC-CLIP, OpenAI ViT-B/16, PASCAL Context (59 classes). Not run here.
# Published: 40.1 mIoU (a secondary source).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_sclip.py",
    "../_base_/models/scclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
