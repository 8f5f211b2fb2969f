# DeCLIP, Table 6: dino-B-8 as the context teacher, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, COCO-Stuff, ADE: 68.4 / 49.4; 37.3, 23.2, 19.5. Not run here.
_base_ = ["table7_qk.py"]
vfm = dict(
    type="TimmVFM",
    model="dino-B-8",
    precision="float16",
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/dino_vitbase8_pretrain.pth"),
)
model = dict(vfms=[vfm])
train_pipeline = _base_.train_pipeline
train_pipeline[1].proxy_sizes = (512,)  # of DistillViews
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
