# DeCLIP, Table 6: dino-B-16 as the context teacher, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, COCO-Stuff, ADE: 67.6 / 47.4; 38.1, 23.7, 20.4. Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
vfm = dict(
    type="TimmVFM",
    model="dino-B-16",
    precision="float16",
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/dino_vitbase16_pretrain.pth"),
)
model = dict(vfms=[vfm])
train_pipeline = [
    dict(type="LoadPILImage"),
    dict(type="DistillViews", size=1024, proxy_sizes=(1024,)),
    dict(type="GridCrops", crop_size=224, max_split=6, max_boxes=20),
    dict(type="PackDistillInputs"),
]
test_pipeline = [
    dict(type="LoadPanopticRegions"),
    dict(type="LetterboxRegions", size=1024, patch_size=16),
    dict(type="PackRegions"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
