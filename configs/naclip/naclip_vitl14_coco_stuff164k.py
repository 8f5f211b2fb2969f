# NACLIP, OpenAI ViT-L/14, COCO-Stuff 164k (171 classes). Not run here.
# Published: 21.4 mIoU (ResCLIP's tables).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k_naclip.py",
    "../_base_/models/naclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
