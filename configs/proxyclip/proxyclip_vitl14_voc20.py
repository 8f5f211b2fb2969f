# ProxyCLIP, OpenAI ViT-L/14, PASCAL VOC 2012 without background (20 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/proxyclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="voc20"))
