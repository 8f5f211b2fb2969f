# OV-COCO at 896 x 896 for OV-DQUO on L/14: as ov_coco_detr.py, with every picture resized to fit
# into the square, which model.data_preprocessor pads it to.
_base_ = "./ov_coco.py"
image_size = (896, 896)
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
train_dataloader = dict(
    batch_size=4,
    batch_sampler=None,  # all are squares
    dataset=dict(pipeline=train_pipeline, pseudo_boxes="annotations/OW_COCO_R2.json"),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
