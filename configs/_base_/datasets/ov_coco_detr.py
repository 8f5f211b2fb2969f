# OV-COCO as DETRs see it, for ResNets: half of the pictures are cropped first; short sides of
# 480 to 800 px, in test 800. The files are those of ov_coco.py, and pseudo boxes of unknown things:
# OW_COCO_R2.json, which the authors of OV-DQUO released, or what
# tools/dataset_converters/pseudo_boxes.py makes. Without them:
# --cfg-options train_dataloader.dataset.pseudo_boxes=None
_base_ = "./ov_coco.py"
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
train_dataloader = dict(
    batch_size=4,
    dataset=dict(pipeline=train_pipeline, pseudo_boxes="annotations/OW_COCO_R2.json"),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
