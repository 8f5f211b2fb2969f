# PASCAL VOC 2007, the classes of a photo: 20 classes, 5,011 photos of trainval, 4,952 of test.
# Objects marked difficult are not looked at: a class that has no others counts as absent, in
# training and in testing. Class names are VOC's own tokens ("diningtable").
# DCLIP's views: 448 x 448, the aspect not kept; a random rectangle, two random operations.
train_pipeline = [
    dict(type="LoadReadableImage"),
    dict(type="Resize", scale=(448, 448), keep_ratio=False, backend="pillow"),
    dict(type="CutoutRandomColor"),
    dict(type="RandAugmentUDA"),
    dict(type="PackMultiLabelInputs"),
]
test_pipeline = [
    dict(type="LoadReadableImage"),
    dict(type="Resize", scale=(448, 448), keep_ratio=False, backend="pillow"),
    dict(type="PackMultiLabelInputs"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="VOCMultiLabelDataset",
        data_root="data/VOCdevkit/VOC2007/",
        split="trainval",
        difficult="negative",
        partial=1.0,  # share of the labels that are known; the rest is -1. DualCoOp's tables: 0.9
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="VOCMultiLabelDataset",
        data_root="data/VOCdevkit/VOC2007/",
        split="test",
        difficult="negative",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MultiLabelMetric")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
