# OV-LVIS as DETRs see it, for ResNets: the pictures of ov_coco_detr.py, the files of ov_lvis.py,
# boxes alone, and OW_LVIS_R3.json for pseudo boxes. Images are drawn with replacement, those with
# rare classes sqrt(threshold / share of images) times as often. The paper's threshold is 0.001; in
# the released code it comes to 1.0, by mistake:
# --cfg-options train_dataloader.sampler.threshold=1.0
_base_ = "./ov_lvis.py"
image_size = (1333, 800)
short_sides = dict(
    type="RandomChoiceResize",
    scales=[(short, 1333) for short in range(480, 801, 32)],
    keep_ratio=True,
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoice",
        transforms=[
            [short_sides],
            [
                dict(
                    type="RandomChoiceResize",
                    scales=[(400, 4200), (500, 4200), (600, 4200)],  # no picture is longer
                    keep_ratio=True,
                ),
                dict(
                    type="RandomCrop",
                    crop_type="absolute_range",
                    crop_size=(384, 600),
                    allow_negative_crop=True,
                ),
                short_sides,
            ],
        ],
    ),
    dict(type="PackDetInputs"),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = image_size  # of Resize
test_pipeline[2].with_mask = False  # of LoadAnnotations
train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type="RepeatFactorSampler", threshold=0.001),
    dataset=dict(
        pipeline=train_pipeline,
        filter_cfg=dict(filter_empty_gt=False),  # 100,170 images
        pseudo_boxes="annotations/OW_LVIS_R3.json",
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=["bbox"])
test_evaluator = val_evaluator
