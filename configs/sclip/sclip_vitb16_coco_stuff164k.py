# SCLIP, OpenAI ViT-B/16, COCO-Stuff 164k (171 classes). Not run here.
# Published: 22.4 mIoU (SCLIP paper), 22.77 (its code, same protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k.py",
    "../_base_/models/sclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
