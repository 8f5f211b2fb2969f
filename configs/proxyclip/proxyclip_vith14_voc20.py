# ProxyCLIP, LAION's ViT-H/14, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 83.3 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/proxyclip_vith14.py",
]
model = dict(decode_head=dict(vocabulary="voc20"))
