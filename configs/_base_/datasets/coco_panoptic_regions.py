# The segments of COCO panoptic val2017 (5,000 photos, 80 thing and 53 stuff classes), to be named.
# data/coco: val2017/, annotations/panoptic_val2017.json, annotations/panoptic_val2017/ (PNGs).
# For a ViT-B/16 at S=560 (35 x 35 patches); for ViT-L/14 set patch_size=14. The crops are read by
# regions=("rois", "maskpool", "crops") of the model; put in before PackRegions:
#   dict(type="CropRegions", size=224)    (336 for ViT-L/14-336)
test_pipeline = [
    dict(type="LoadPanopticRegions"),
    dict(type="LetterboxRegions", size=560, patch_size=16),
    dict(type="PackRegions"),
]
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PanopticRegionsDataset",
        data_root="data/coco/",
        ann_file="annotations/panoptic_val2017.json",
        data_prefix=dict(img_path="val2017", seg_map_path="annotations/panoptic_val2017"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_dataloader = test_dataloader
test_evaluator = dict(type="RegionAccuracy")
val_evaluator = test_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
