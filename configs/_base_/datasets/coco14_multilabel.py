# COCO 2014, the classes of a photo: 80 classes. Of 82,783 photos of train2014 and 40,504 of val2014
# those with an annotation: 82,081 and 40,137. Any annotation counts, of any size, crowds too.
# data/coco14: train2014/, val2014/, annotations/instances_{train,val}2014.json
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
    batch_size=32,  # 2,566 iterations an epoch
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CocoMultiLabelDataset",
        data_root="data/coco14/",
        ann_file="annotations/instances_train2014.json",
        data_prefix=dict(img_path="train2014"),
        filter_empty=True,
        # Share of the labels that are known; the rest is -1 and no loss. The author's logs and the
        # names of most of his checkpoints say 0.9, the paper speaks of all labels.
        partial=1.0,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoMultiLabelDataset",
        data_root="data/coco14/",
        ann_file="annotations/instances_val2014.json",
        data_prefix=dict(img_path="val2014"),
        filter_empty=True,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MultiLabelMetric")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
