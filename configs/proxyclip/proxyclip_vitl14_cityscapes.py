# ProxyCLIP, OpenAI ViT-L/14, Cityscapes (19 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/models/proxyclip_vitl14.py",
]
model = dict(
    decode_head=dict(vocabulary="cityscapes"),
    test_cfg=dict(crop_size=(224, 224)),
)
