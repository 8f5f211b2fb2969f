# OV-DQUO on CLIP ViT-L/14-336 for OV-LVIS: what its OV-COCO file and B/16 on OV-LVIS change.
_base_ = "./ovdquo_vitb16.py"
clip = dict(arch="EVA02-L-14-336", init_cfg=dict(type="Pretrained", checkpoint="merged2b_s6b_b61k"))
model = dict(
    max_classes=100,
    data_preprocessor=dict(pad_size_divisor=896),
    backbone=dict(encoder=dict(**clip), out_indices=(10, 14, 23)),
    neck=dict(in_channels=[1024] * 3),
    bbox_head=dict(text_encoder=dict(**clip)),
    test_cfg=dict(target_class_factor=8.0, max_per_img=300),
)
