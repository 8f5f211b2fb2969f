# DeCLIP, Table 6: sam-L as the context teacher, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, COCO-Stuff, ADE: 76.8 / 52.6; 37.7, 23.0, 20.0. Not run here.
_base_ = ["table7_qk.py"]
vfm = dict(
    type="TimmVFM",
    model="sam-L",
    precision="float16",
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/sam_vit_l_0b3195.pth"),
)
model = dict(vfms=[vfm])
train_pipeline = _base_.train_pipeline
train_pipeline[1].proxy_sizes = (1024,)  # of DistillViews
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
