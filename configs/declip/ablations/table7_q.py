# DeCLIP, Table 7: Q as the context features, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, ADE: 77.2 / 52.5; 38.7, 21.8. Not run here.
_base_ = ["../distill_vitb16_eva_dinov2_coco.py"]
model = dict(student=dict(readout=dict(attention=("qq",))))
train_pipeline = [
    dict(type="LoadPILImage"),
    dict(type="DistillViews", size=1024, proxy_sizes=(896,)),
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
