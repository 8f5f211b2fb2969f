# ResCLIP, OpenAI ViT-L/14, COCO-Stuff 164k (171 classes). Not run here.
# Published: 23.4 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k_naclip.py",
    "../_base_/models/resclip_vitl14.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=1.2, layers=0.8))),
    decode_head=dict(vocabulary="coco_stuff164k"),
)
