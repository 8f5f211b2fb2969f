# DCLIP with CLIP's RN50, whose space has 1,024 dimensions: 1.25 M parameters learn.
_base_ = "dclip_rn101.py"
clip = dict(arch="RN50-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(encoder=dict(**clip), text_encoder=dict(**clip))
