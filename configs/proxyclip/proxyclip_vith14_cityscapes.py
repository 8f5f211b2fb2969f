# ProxyCLIP, LAION's ViT-H/14, Cityscapes (19 classes). Not run here.
# Published: 42.0 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/proxyclip_vith14.py",
]
model = dict(
    decode_head=dict(vocabulary="cityscapes"),
    test_cfg=dict(crop_size=(224, 224)),
)
