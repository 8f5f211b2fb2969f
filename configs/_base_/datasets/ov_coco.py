# OV-COCO: 48 base classes in training, 65 in test (AP50 of base, novel, all). The files are made by
# tools/dataset_converters/ov_coco.py data/coco/annotations
# 640 x 640, F-ViT B/16; ov_coco_896.py is that of L/14.
data_root = "data/coco/"
# Crops and resized pictures fit into it; model.data_preprocessor pads them to that very square.
image_size = (640, 640)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=image_size, ratio_range=(0.1, 2.0), keep_ratio=True),
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
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="OVCocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_train2017_seen_2_65_cat.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="OVCocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_val2017_all_2.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
# AP50: coco/novel_ap50 (the headline), coco/base_ap50, fractions of 1; of all 65: coco/bbox_mAP_50.
val_evaluator = dict(
    type="OVCocoMetric",
    ann_file=data_root + "annotations/instances_val2017_all_2.json",
    metric="bbox",
)
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
