# ADE20K validation: 150 classes, 2,000 photos.
# Short side 448 px, long side at most 2,048, the aspect kept (ClearCLIP); labels keep their size.
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 448), keep_ratio=True),
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
test_evaluator = dict(type="OpenVocabIoUMetric", iou_metrics=["mIoU"])
val_evaluator = test_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
