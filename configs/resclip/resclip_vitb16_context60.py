# ResCLIP, OpenAI ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 33.5 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_sclip.py",
    "../_base_/models/resclip_vitb16.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=1.4, layers=0.6))),
    decode_head=dict(vocabulary="context60", prob_thd=0.1),
)
