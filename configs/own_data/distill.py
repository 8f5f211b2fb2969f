# DeCLIP distils OpenAI's CLIP on a folder of photos, any below my_photos/, without annotations.
# Context comes from DINOv2: its official file must be at the path of model.vfms.
_base_ = [
    "../_base_/mmengine_runtime.py",
    "../_base_/models/declip_distill_vitb16.py",
    "../_base_/schedules/declip_44k.py",
]
data_root = "my_photos/"
iterations = 5000

clip = dict(arch="ViT-B-16-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(
    student=dict(type="DeCLIPViT", readout=dict(scale="sqrt"), **clip),
    region_classifier=None,  # there are no named regions to validate on
)
train_pipeline = [
    dict(type="LoadPILImage"),
    dict(type="DistillViews", size=560, proxy_sizes=(490,)),
    dict(type="GridCrops", crop_size=224, max_split=6, max_boxes=20),
    dict(type="PackDistillInputs"),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="DistillImageDataset", data_root=data_root, pipeline=train_pipeline),
)
train_cfg = dict(max_iters=iterations)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, end=500),
    dict(type="CosineAnnealingLR", T_max=iterations - 500, begin=500, by_epoch=False),
]
custom_hooks = _base_.distill_hooks
