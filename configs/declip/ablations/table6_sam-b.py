# DeCLIP, Table 6: sam-B as the context teacher, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, COCO-Stuff, ADE: 75.0 / 51.8; 35.3, 22.0, 18.5. Also
# Table 1, row 3, decoupled: Cityscapes 32.3. Not run here.
_base_ = ["table7_qk.py"]
vfm = dict(
    type="TimmVFM",
    model="sam-B",
    precision="float16",
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/sam_vit_b_01ec64.pth"),
)
model = dict(vfms=[vfm])
train_pipeline = _base_.train_pipeline
train_pipeline[1].proxy_sizes = (1024,)  # of DistillViews
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
