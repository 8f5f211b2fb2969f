# ProxyCLIP, LAION's ViT-H/14, ADE20K (150 classes). Not run here.
# Published: 24.2 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/proxyclip_vith14.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
