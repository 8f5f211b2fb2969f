# SCLIP: query-query plus key-key attention in the last block, residual and FFN kept.
# Its own protocol: windows of 224 px every 112, never padded (the patch grid is floored and the
# map stretched), cosines x 40.
_base_ = "clip_vitl14.py"
model = dict(
    backbone=dict(type="SCLIPViT"),
    decode_head=dict(logit_scale=40.0),
    test_cfg=dict(crop_size=(224, 224), stride=(112, 112), window_padding="floor"),
)
