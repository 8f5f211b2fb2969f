# ResCLIP, OpenAI ViT-L/14, Cityscapes (19 classes). Not run here.
# Published: 33.7 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes_sclip.py",
    "../_base_/models/resclip_vitl14.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=1.6, layers=0.4))),
    decode_head=dict(vocabulary="cityscapes"),
)
