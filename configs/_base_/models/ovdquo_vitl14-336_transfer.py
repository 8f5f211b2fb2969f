# OV-DQUO L/14-336 of OV-LVIS on another data set: test only, with the checkpoint of OV-LVIS. With a
# factor of 1 it does not matter which classes are novel; whether the authors did so is not known.
_base_ = "./ovdquo_vitb16.py"
clip = dict(arch="EVA02-L-14-336", init_cfg=dict(type="Pretrained", checkpoint="merged2b_s6b_b61k"))
model = dict(
    max_classes=100,
    data_preprocessor=dict(pad_size_divisor=896),
    backbone=dict(encoder=dict(**clip), out_indices=(10, 14, 23)),
    neck=dict(in_channels=[1024] * 3),
    bbox_head=dict(text_encoder=dict(**clip)),
    test_cfg=dict(target_class_factor=1.0, max_per_img=300),
)
