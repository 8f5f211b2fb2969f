# MetaCLIP 2 as ClearCLIP reads CLIP.
_base_ = "metaclip2_vith14.py"
model = dict(backbone=dict(readout="clearclip"))
