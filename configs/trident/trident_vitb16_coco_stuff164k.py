# Trident, OpenAI ViT-B/16, COCO-Stuff 164k (171 classes). Not run here.
# Published: 28.3 mIoU (its table, with prompts to SAM).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k_trident.py",
    "../_base_/models/trident_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
