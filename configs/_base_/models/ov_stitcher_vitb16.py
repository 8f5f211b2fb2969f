# OV-Stitcher: CorrCLIP's branches, but the values of all windows are put together first and mixed
# by one affinity of the whole image. Windows of 336 px every 112, cosines x 40. Its sentences
# written for each class were not at hand: the 80 templates stand here, and a file of sentences is
# templates=dict(_delete_=True, patterns="imagenet80", more=FILE) of the head. Its class lists are
# not known, CorrCLIP's stand here.
_base_ = "proxyclip_vitb16.py"
model = dict(
    backbone=dict(readout="ov_stitcher"),
    masks=dict(type="MaskFolder"),
    refiners=[dict(type="MaskVote")],
    test_cfg=dict(stitch="values"),
)
