# DeCLIP, Table 6: sam-L as the context teacher, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, COCO-Stuff, ADE: 76.8 / 52.6; 37.7, 23.0, 20.0. Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
vfm = dict(
    type="TimmVFM",
    model="sam-L",
    precision="float16",
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/sam_vit_l_0b3195.pth"),
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
