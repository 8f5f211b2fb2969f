# Perception Encoder with the values of the last block, each through the attention pool alone.
_base_ = "pe_vitb16.py"
model = dict(backbone=dict(readout="maskclip"))
