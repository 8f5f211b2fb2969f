# ProxyCLIP, OpenAI ViT-B/16, COCO-Stuff 164k (171 classes). Not run here.
# Published: 26.5 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k_naclip.py",
    "../_base_/models/proxyclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
