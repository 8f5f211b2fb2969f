# TIPSv2 with its patch tokens as they are.
_base_ = "tips_vitb14.py"
model = dict(backbone=dict(readout="vanilla"))
