# The CAT-Seg of configs/shapes/catseg.py on real street photos: CamVid at 480 x 360, 11 classes.
# A check that the road from photos to mIoU is sound, not a benchmark: the tiny CLIP has never seen
# a photo or any of these words. Expects data/camvid/{images,annotations}/{train,val}; label 11 is
# "unlabelled". Elsewhere: --cfg-options train_dataloader.dataset.data_root=... (and val_, test_).
_base_ = ["../shapes/catseg.py"]

data_root = "data/camvid/"
ignore = 11
# fmt: off
metainfo = dict(
    classes=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car",
        "pedestrian", "bicyclist",
    ),
    palette=[
        [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
        [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
    ],
)
# fmt: on
dataset = dict(
    _delete_=True,
    type="BaseSegDataset",
    data_root=data_root,
    metainfo=metainfo,
    img_suffix=".jpg",
    seg_map_suffix=".png",
    ignore_index=ignore,
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadReadableAnnotations"),
    dict(type="RandomResize", scale=(320, 240), ratio_range=(0.8, 1.6), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(192, 192), ignore_index=ignore),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(320, 240), keep_ratio=True),
    dict(type="LoadReadableAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=(192, 192), seg_pad_val=ignore),
    clip_size=(192, 192),
    decode_head=dict(ignore_index=ignore),
    test_cfg=dict(
        mode="slide_with_global", size=(240, 320), crop_size=(192, 192), stride=(48, 128)
    ),
)
val_evaluator = dict(ignore_index=ignore)
test_evaluator = val_evaluator
work_dir = "work_dirs/camvid_catseg"  # configs/shapes has a file of this name
