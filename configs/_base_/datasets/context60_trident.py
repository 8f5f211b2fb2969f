# The same photos as Trident sees them: short side 576 px, then both to a multiple of 16.
_base_ = "context60.py"
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 576), keep_ratio=True),
    dict(type="ResizeToMultiple", size_divisor=16),
    dict(type="LoadReadableAnnotations"),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
