# SCLIP, OpenAI ViT-L/14, COCO-Stuff 164k (171 classes). Not run here.
# Published: 13.1 mIoU (ClearCLIP paper under its own protocol); the protocol here is
# SCLIP's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k.py",
    "../_base_/models/sclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
