# Your photos and label maps: my_data/{images,labels}/{train,val}, IMG_1.jpg beside IMG_1.png.
# A label map has one number a pixel, the place of its class in the list; 255 is "no label".
data_root = "my_data/"
classes = ("road", "tree", "car", "sky")
# What else means "no label" in your maps: unlabelled=11, or (4, 11). It is set here and nowhere
# else. Where 0 means it and the classes count from 1: reduce_zero_label=True in the data set.
load_labels = dict(type="LoadReadableAnnotations", unlabelled=())
crop_size = (384, 384)  # of CAT-Seg's training

train_pipeline = [
    dict(type="LoadImageFromFile"),
    load_labels,
    dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.95),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 448), keep_ratio=True),  # behind it labels keep their size
    load_labels,
    dict(type="PackSegInputs"),
]
dataset = dict(
    type="FolderSegDataset",
    data_root=data_root,
    metainfo=dict(classes=classes),
    seg_map_suffix=".png",  # "_mask.png" for IMG_1_mask.png
    reduce_zero_label=False,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/train", seg_map_path="labels/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/val", seg_map_path="labels/val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="OpenVocabIoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
