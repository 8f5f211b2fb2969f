# DeCLIP, Table 1, row 2: content and context on one feature, the dense map of the ordinary
# last block. Published with SAM-B as the teacher: mAcc thing / stuff 65.6 / 41.3; mIoU Context59
# 32.4, Cityscapes 28.7 (row 3, decoupled: 75.0 / 51.8; 35.3, 32.3). Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
model = dict(
    student=dict(readout=dict(_delete_=True, attention=("qk",), residual="token", ffn=True)),
    context_from="map",
)
