# OV-DQUO on CLIP ViT-L/14-336 for OV-COCO: as B/16, at another size, width and other blocks.
_base_ = "./ovdquo_vitb16.py"
clip = dict(arch="EVA02-L-14-336", init_cfg=dict(type="Pretrained", checkpoint="merged2b_s6b_b61k"))
model = dict(
    data_preprocessor=dict(pad_size_divisor=896),
    backbone=dict(encoder=dict(**clip), out_indices=(10, 14, 23)),
    neck=dict(in_channels=[1024] * 3),
    bbox_head=dict(text_encoder=dict(**clip)),
)
