# ResCLIP, OpenAI ViT-B/16, PASCAL Context (59 classes). Not run here.
# Published: 36.8 mIoU (ResCLIP's tables, with its second pass).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_sclip.py",
    "../_base_/models/resclip_vitb16.py",
]
model = dict(
    backbone=dict(readout=dict(attention=dict(kk=1.2, layers=0.8))),
    decode_head=dict(vocabulary="context59"),
)
