# CLIP's RN50 names an image as a whole.
_base_ = "clip_recognizer_rn101.py"
clip = dict(arch="RN50-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(encoder=dict(**clip), text_encoder=dict(**clip))
