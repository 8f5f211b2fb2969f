# ProxyCLIP with LAION's CLIP ViT-H/14 (which has GELU) under the protocol of proxyclip_vitb16.py.
_base_ = "proxyclip_vitb16.py"
clip = dict(arch="ViT-H-14", init_cfg=dict(checkpoint="laion2b_s32b_b79k"))
model = dict(backbone=clip, decode_head=dict(text_encoder=clip))
