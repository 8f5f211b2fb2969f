# ShapeScenes for distillation: tools/dataset_converters/shapes.py data/shapes
# All training images (up to 192 px a side), no annotations.
train_pipeline = [
    dict(type="LoadPILImage"),
    dict(type="DistillViews", size=160, proxy_sizes=(160,)),
    dict(type="GridCrops", crop_size=80, max_split=10, max_boxes=20),
    dict(type="PackDistillInputs"),
]
train_dataloader = dict(
    batch_size=6,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="DistillImageDataset",
        data_root="data/shapes/",
        data_prefix=dict(img_path="images/train"),
        pipeline=train_pipeline,
    ),
)
