# ADE20K of 2021 with 847 classes, 2,000 photos, short side at most 512 px, 16-bit labels.
# tools/dataset_converters/ade20k_full.py makes the folder from the raw download.
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
        type="ADE20K847Dataset",  # reads the names from classes.txt
        data_root="data/ade20k_full/",
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
    ),
)
val_dataloader = test_dataloader
# mIoU_present is the published protocol: the mean over the classes in the ground truth.
test_evaluator = dict(
    type="OpenVocabIoUMetric", iou_metrics=["mIoU"], present_only=True, ignore_index=65535
)
val_evaluator = test_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
