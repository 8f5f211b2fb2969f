# ResCLIP, OpenAI ViT-L/14, PASCAL Context with background (60 classes). Not run here.
# Published: 30.9 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_sclip.py",
    "../_base_/models/resclip_vitl14.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=1.4, layers=0.6))),
    decode_head=dict(vocabulary="context60", prob_thd=0.1),
)
