# DeCLIP, Table 6: dinov2-L as the context teacher, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, COCO-Stuff, ADE: 77.6 / 53.1; 38.0, 24.1, 21.3. Not run here.
_base_ = ["table7_qk.py"]
vfm = dict(
    type="TimmVFM",
    model="dinov2-L",
    precision="float16",
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/dinov2_vitl14_reg4_pretrain.pth"),
)
model = dict(vfms=[vfm])
