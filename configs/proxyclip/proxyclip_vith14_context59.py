# ProxyCLIP, LAION's ViT-H/14, PASCAL Context (59 classes). Not run here.
# Published: 39.6 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_sclip.py",
    "../_base_/models/proxyclip_vith14.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
