# COCO train2017 for DeCLIP's distillation: the 118,287 images of the instances json, no
# annotations. For ViT-B/16: side 560 = 35 tokens of 16, DINOv2's 490 = 35 tokens of 14.
# ViT-L/14-336 takes size=560, proxy_sizes=(560,), crop_size=336 and 2 images a GPU.
train_pipeline = [
    dict(type="LoadPILImage"),
    dict(type="DistillViews", size=560, proxy_sizes=(490,)),
    dict(type="GridCrops", crop_size=224, max_split=6, max_boxes=20),
    dict(type="PackDistillInputs"),
]
train_dataloader = dict(
    batch_size=4,  # a GPU, on 4 GPUs: 7,393 iterations an epoch
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="DistillImageDataset",
        data_root="data/coco/",
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img_path="train2017"),
        pipeline=train_pipeline,
    ),
)
