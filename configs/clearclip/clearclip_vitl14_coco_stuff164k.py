# ClearCLIP, OpenAI ViT-L/14, COCO-Stuff 164k (171 classes). Not run here.
# Published: 19.9 mIoU (ClearCLIP paper, its protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k.py",
    "../_base_/models/clearclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
