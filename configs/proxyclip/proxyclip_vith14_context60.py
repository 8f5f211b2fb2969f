# ProxyCLIP, LAION's ViT-H/14, PASCAL Context with background (60 classes). Not run here.
# Published: 35.4 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_sclip.py",
    "../_base_/models/proxyclip_vith14.py",
]
model = dict(decode_head=dict(vocabulary="context60", prob_thd=0.15))
