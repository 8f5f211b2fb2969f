# DeCLIP, Table 7: Q+K as the context features, S=1024 (64 x 64 tokens). Published mAcc
# thing / stuff; mIoU Context59, ADE: 77.3 / 53.8; 39.2, 21.9. Not run here.
# ../distill_vitb16_eva_dinov2_coco.py at 1024 px, and the base of Tables 6 and 7.
_base_ = [
    "../../_base_/mmengine_runtime.py",
    "../../_base_/models/declip_distill_vitb16.py",
    "../../_base_/datasets/coco_distill.py",
    "../../_base_/datasets/coco_panoptic_regions.py",
    "../../_base_/schedules/declip_44k.py",
]
default_hooks = dict(checkpoint=dict(interval=7393))  # an epoch
custom_hooks = _base_.distill_hooks
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
