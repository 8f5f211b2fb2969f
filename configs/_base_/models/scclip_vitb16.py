# SC-CLIP: outlier tokens filled from their neighbours, the affinity of CLIP's own block 8 beside
# key-key attention, features of the blocks 3 to 9 added. Windows of 224 px every 112, never padded,
# cosines x 40.
_base_ = "clip_vitb16.py"
model = dict(
    backbone=dict(readout="scclip"),
    decode_head=dict(logit_scale=40.0),
    test_cfg=dict(crop_size=(224, 224), stride=(112, 112), window_padding="floor"),
)
