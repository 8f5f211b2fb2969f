# OV-Stitcher: CorrCLIP's branches, but the values of all windows are put together first and mixed
# by one affinity of the whole image. Windows of 336 px every 112, cosines x 40. Not known: its
# prompts written for each class (the 80 templates stand here) and its class lists (CorrCLIP's stand
# here).
_base_ = "proxyclip_vitb16.py"
model = dict(
    backbone=dict(readout="ov_stitcher"),
    masks=dict(type="MaskFolder"),
    refiners=[dict(type="MaskVote")],
    test_cfg=dict(stitch="values"),
)
