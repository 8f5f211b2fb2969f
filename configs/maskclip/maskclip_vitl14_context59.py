# MaskCLIP, OpenAI ViT-L/14, PASCAL Context without background (59 classes). Not run here.
# Published: 12.6 mIoU (ClearCLIP paper, its protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59.py",
    "../_base_/models/maskclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
