# The same photos as DeCLIP sees them: short side 448 px, long side at most 4,096.
_base_ = "voc21.py"
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(4096, 448), keep_ratio=True),
    dict(type="LoadReadableAnnotations"),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
