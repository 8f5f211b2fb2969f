# SCLIP: query-query plus key-key attention in the last block, residual and FFN kept.
# Its own protocol: windows of 224 px every 112, never padded (the patch grid is floored and the
# map stretched), cosines x 40. The published ViT-L/14 numbers are of ClearCLIP's paper; whether
# they keep residual and FFN is not said there, but is most likely.
_base_ = "clip_vitb16.py"
clip = dict(arch="ViT-L-14-quickgelu")
model = dict(
    backbone=dict(type="SCLIPViT", **clip),
    decode_head=dict(text_encoder=clip, logit_scale=40.0),
    test_cfg=dict(crop_size=(224, 224), stride=(112, 112), window_padding="floor"),
)
