# ResCLIP, OpenAI ViT-L/14, ADE20K (150 classes). Not run here.
# Published: 18.2 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k_sclip.py",
    "../_base_/models/resclip_vitl14.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=1.4, layers=0.6))),
    decode_head=dict(vocabulary="ade20k"),
)
