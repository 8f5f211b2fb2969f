# PAS-20b: PASCAL VOC 2012 val with background, 1,449 photos; the raw label maps serve. The model
# is asked for 59 names: VOC's 20 classes, and 39 that are the background together (class 20).
# Short edge 640 px (long at most 2,560) with Pillow, as CAT-Seg; labels keep their size.
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeShortestEdgePIL", scale=640, max_size=2560),
    dict(type="LoadReadableAnnotations"),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PascalVOC20bDataset",
        data_root="data/VOCdevkit/VOC2012/",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/val.txt",
        pipeline=test_pipeline,
    ),
)
val_dataloader = test_dataloader
# mIoU_present is the published protocol: the mean over the classes in the ground truth.
test_evaluator = dict(
    type="OpenVocabIoUMetric", iou_metrics=["mIoU"], present_only=True, background_from=20
)
val_evaluator = test_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
