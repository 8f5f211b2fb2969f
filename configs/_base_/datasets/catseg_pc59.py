# PC-59: PASCAL Context val without background, 59 classes, about 5,100 photos.
# tools/dataset_converters/pascal_context.py makes the labels and the list of photos.
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
        type="CATSegContext59Dataset",  # mmseg's, whose "table" is called "diningtable"
        data_root="data/VOCdevkit/VOC2010/",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
        ann_file="ImageSets/SegmentationContext/val.txt",
        pipeline=test_pipeline,
    ),
)
val_dataloader = test_dataloader
# mIoU_present is the published protocol: the mean over the classes in the ground truth.
test_evaluator = dict(type="OpenVocabIoUMetric", iou_metrics=["mIoU"], present_only=True)
val_evaluator = test_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
