# The classes of ShapeScenes' pictures: 12 things and 6 grounds, base and novel, from the panoptic
# annotations: tools/dataset_converters/shapes.py data/shapes
# 160 x 160, the aspect not kept. No random views: 600 pictures with a colour as their class (plum,
# orange, grass) suffer from RandAugment, and features can be computed once (--cache-features).
pipeline = [
    dict(type="LoadReadableImage"),
    dict(type="Resize", scale=(160, 160), keep_ratio=False, backend="pillow"),
    dict(type="PackMultiLabelInputs"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CocoMultiLabelDataset",
        data_root="data/shapes/",
        ann_file="annotations/panoptic_train.json",
        data_prefix=dict(img_path="images/train"),
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoMultiLabelDataset",
        data_root="data/shapes/",
        ann_file="annotations/panoptic_val.json",
        data_prefix=dict(img_path="images/val"),
        test_mode=True,
        pipeline=pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MultiLabelMetric")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
