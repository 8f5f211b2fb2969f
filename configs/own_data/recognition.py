# Your photos and what they show: my_data/images/*, my_data/{train,val}.csv. A list has a photo a
# line, "beach.jpg, sand, water", or is a table, "filename, sand, water" and "beach.jpg, 1, 1".
data_root = "my_data/"
metainfo = dict(classes=("sand", "water", "grass", "kite"))

train_pipeline = [
    dict(type="LoadReadableImage"),
    dict(type="Resize", scale=(448, 448), keep_ratio=False, backend="pillow"),
    dict(type="RandAugmentUDA"),
    dict(type="PackMultiLabelInputs"),
]
test_pipeline = [
    dict(type="LoadReadableImage"),
    dict(type="Resize", scale=(448, 448), keep_ratio=False, backend="pillow"),
    dict(type="PackMultiLabelInputs"),
]
dataset = dict(
    type="MultiLabelListDataset",
    data_root=data_root,
    data_prefix=dict(img_path="images"),
    metainfo=metainfo,
    filter_empty=False,  # photos that show none of the classes count as well
)
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(**dataset, ann_file="train.csv", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**dataset, ann_file="val.csv", test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MultiLabelMetric")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
