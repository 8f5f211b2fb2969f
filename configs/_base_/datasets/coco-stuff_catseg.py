# COCO-Stuff 164k for CAT-Seg: train2017 with the published augmentation, val2017; 171 classes,
# label maps *_labelTrainIds.png as in mmseg. Order and values of the transforms are the released
# ones: short edge 384 (long at most 1,333) with Pillow, plain crop, SSD colours, flip, padding with
# raw 128 and label 255.
crop_size = (384, 384)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadReadableAnnotations"),
    dict(type="ResizeShortestEdgePIL", scale=384, max_size=1333),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=1.0),
    dict(type="PhotoMetricDistortion"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="Pad", size=crop_size, pad_val=dict(img=128, seg=255)),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeShortestEdgePIL", scale=640, max_size=2560),
    dict(type="LoadReadableAnnotations"),
    dict(type="PackSegInputs"),
]
dataset = dict(type="COCOStuffDataset", data_root="data/coco_stuff164k/")
train_dataloader = dict(
    batch_size=4,  # in all: on n GPUs give each 4 / n
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/train2017", seg_map_path="annotations/train2017"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
# mIoU_present is the mean that the released code reports (detectron2: classes in the ground truth).
val_evaluator = dict(type="OpenVocabIoUMetric", iou_metrics=["mIoU"], present_only=True)
test_evaluator = val_evaluator
