# SC-CLIP, OpenAI ViT-B/16, COCO-Stuff 164k (171 classes). Not run here.
# Published: 26.6 mIoU (a secondary source).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k_naclip.py",
    "../_base_/models/scclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
