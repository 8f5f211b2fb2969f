# ShapeScenes, the generated world: tools/dataset_converters/shapes.py data/shapes
# Training sees the base classes only (the labels of the others become "ignore"); testing sees all.
# fmt: off
base_classes = (
    "apple", "plum", "orange", "banana", "starfish", "wheel", "fish", "umbrella", "carrot",
    "grass", "sand", "water", "gravel",
)
# fmt: on
dataset_type = "ShapeScenesDataset"
data_root = "data/shapes/"
crop_size = (128, 128)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadReadableAnnotations"),
    dict(type="RandomResize", scale=(160, 160), ratio_range=(0.8, 1.6), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadReadableAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"),
        metainfo=dict(classes=base_classes),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="OpenVocabIoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
