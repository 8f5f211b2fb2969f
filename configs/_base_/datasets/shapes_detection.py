# Boxes of ShapeScenes' 12 things: 9 base classes in training, and 3 novel ones in test, from
# tools/dataset_converters/shapes.py data/shapes
# Annotations of novel classes are left out in training, by the data set itself.
data_root = "data/shapes/"
# Crops and resized pictures fit into it; model.data_preprocessor pads them to that very square.
image_size = (160, 160)
# fmt: off
metainfo = dict(
    classes=(
        "apple", "plum", "orange", "watermelon", "banana", "starfish", "kite", "wheel", "mushroom",
        "fish", "umbrella", "carrot",
    ),
    base_classes=(
        "apple", "plum", "orange", "banana", "starfish", "wheel", "fish", "umbrella", "carrot",
    ),
    novel_classes=("watermelon", "kite", "mushroom"),
    unused_classes=(),
)
# fmt: on
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    # Nine things have nine looks, which a detector learns by heart, and it then passes over things
    # of other colours. prob=0.0 shows them as they are.
    dict(
        type="RandomApply",
        prob=1.0,
        transforms=[dict(type="PhotoMetricDistortion", hue_delta=180)],
    ),
    dict(type="RandomResize", scale=image_size, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(
        type="RandomCrop",
        crop_type="absolute_range",
        crop_size=image_size,
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=image_size, keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="OVCocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="images/train/"),
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="OVCocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="images/val/"),
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="OVCocoMetric",
    ann_file=data_root + "annotations/instances_val.json",
    metric="bbox",
)
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
