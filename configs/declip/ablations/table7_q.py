# DeCLIP, Table 7: Q as the context features, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, ADE: 77.2 / 52.5; 38.7, 21.8. Not run here.
_base_ = ["table7_qk.py"]
model = dict(student=dict(readout=dict(attention=("qq",))))
