# ProxyCLIP, OpenAI ViT-L/14, ADE20K (150 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/proxyclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="ade20k"))
