# ADE20K of 2016, 150 classes, 2,000 photos; the raw label maps serve.
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
        type="ADE20KDataset",
        data_root="data/ade/ADEChallengeData2016/",
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
    ),
)
val_dataloader = test_dataloader
# mIoU_present is the published protocol: the mean over the classes in the ground truth.
test_evaluator = dict(type="OpenVocabIoUMetric", iou_metrics=["mIoU"], present_only=True)
val_evaluator = test_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
