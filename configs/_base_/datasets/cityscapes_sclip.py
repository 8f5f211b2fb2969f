# The same photos as SCLIP sees them: short side 560 px.
_base_ = "cityscapes.py"
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 560), keep_ratio=True),
    dict(type="LoadReadableAnnotations"),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
