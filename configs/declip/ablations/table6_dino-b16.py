# DeCLIP, Table 6: dino-B-16 as the context teacher, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, COCO-Stuff, ADE: 67.6 / 47.4; 38.1, 23.7, 20.4. Not run here.
_base_ = ["table7_qk.py"]
vfm = dict(
    type="TimmVFM",
    model="dino-B-16",
    precision="float16",
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/dino_vitbase16_pretrain.pth"),
)
model = dict(vfms=[vfm])
train_pipeline = _base_.train_pipeline
train_pipeline[1].proxy_sizes = (1024,)  # of DistillViews
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
