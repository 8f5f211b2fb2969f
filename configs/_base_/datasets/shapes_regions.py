# The segments of ShapeScenes (12 thing and 6 stuff classes), to be named:
# tools/dataset_converters/shapes.py data/shapes
test_pipeline = [
    dict(type="LoadPanopticRegions"),
    dict(type="LetterboxRegions", size=160, patch_size=8),
    dict(type="CropRegions", size=80),
    dict(type="PackRegions"),
]
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PanopticRegionsDataset",
        data_root="data/shapes/",
        ann_file="annotations/panoptic_val.json",
        data_prefix=dict(img_path="images/val", seg_map_path="annotations/panoptic_val"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_dataloader = test_dataloader
test_evaluator = dict(type="RegionAccuracy")
val_evaluator = test_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
