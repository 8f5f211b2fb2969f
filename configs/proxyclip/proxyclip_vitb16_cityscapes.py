# ProxyCLIP, OpenAI ViT-B/16, Cityscapes (19 classes). Not run here.
# Published: 38.1 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/proxyclip_vitb16.py",
]
model = dict(
    decode_head=dict(vocabulary="cityscapes"),
    test_cfg=dict(crop_size=(224, 224)),
)
