# DeCLIP, Table 7: K as the context features, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, ADE: 76.5 / 51.0; 39.4, 21.6. Not run here.
_base_ = ["table7_qk.py"]
model = dict(student=dict(readout=dict(attention=("kk",))))
