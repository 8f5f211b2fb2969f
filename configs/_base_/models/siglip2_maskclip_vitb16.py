# SigLIP 2 with the values of the last block, each through the attention pool alone.
_base_ = "siglip2_vitb16.py"
model = dict(backbone=dict(readout="maskclip"))
