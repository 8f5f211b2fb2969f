# MobileCLIP-B as ClearCLIP reads CLIP.
_base_ = "mobileclip_vitb16.py"
model = dict(backbone=dict(readout="clearclip"))
