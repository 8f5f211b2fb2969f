# OV-LVIS at 1024 x 1024 for OV-DQUO on B/16: the pictures of ov_coco_detr_1024.py, and what
# ov_lvis_detr.py says of files, boxes and the sampler.
_base_ = "./ov_lvis.py"
image_size = (1024, 1024)
fit = dict(type="Resize", scale=image_size, keep_ratio=True)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoice",
        transforms=[
            [fit],
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
                fit,
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
    batch_sampler=None,  # all are squares
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
