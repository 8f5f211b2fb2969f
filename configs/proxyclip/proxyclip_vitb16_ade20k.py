# ProxyCLIP, OpenAI ViT-B/16, ADE20K (150 classes). Not run here.
# Published: 20.2 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/proxyclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
