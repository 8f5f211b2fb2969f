# NACLIP: key-key attention with a Gaussian of the distance (5 patches) in the last block, no
# residual, no FFN. Its protocol: windows of 224 px every 112, never padded, cosines x 40; VOC 20
# and 21 as whole images. The paper's main table; naclip_pamr_vitb16.py is what its code does by
# default.
_base_ = "clip_vitb16.py"
model = dict(
    backbone=dict(readout="naclip"),
    decode_head=dict(logit_scale=40.0),
    test_cfg=dict(crop_size=(224, 224), stride=(112, 112), window_padding="floor"),
)
