# SCLIP, OpenAI ViT-L/14, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 60.3 mIoU (ClearCLIP paper under its own protocol); the protocol here is
# SCLIP's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/sclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="sclip_voc20"))
