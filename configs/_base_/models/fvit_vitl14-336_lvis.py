# F-ViT on CLIP ViT-L/14-336 for OV-LVIS: what fvit_vitl14-336.py changes, and beta.
_base_ = "./fvit_vitb16_lvis.py"
clip = dict(arch="EVA02-L-14-336", init_cfg=dict(type="Pretrained", checkpoint="merged2b_s6b_b61k"))
strides = [3.5, 7, 14, 28]
model = dict(
    data_preprocessor=dict(pad_size_divisor=896),
    backbone=dict(encoder=dict(**clip), out_indices=(6, 10, 14, 23)),
    neck=dict(in_channels=[1024] * 4),
    rpn_head=dict(anchor_generator=dict(strides=[*strides, 56])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=strides),
        bbox_head=dict(text_encoder=dict(**clip), fc_out_channels=768),
        mask_roi_extractor=dict(featmap_strides=strides),
    ),
    test_cfg=dict(rcnn=dict(beta=0.4)),  # the released code notes that 0.6 to 0.8 raise AP_r
)
