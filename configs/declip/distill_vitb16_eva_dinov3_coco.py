# DeCLIP on EVA02-CLIP-B/16 with DINOv3-B/16 as the context teacher, COCO train2017. Not run here.
# All else as with DINOv2-B. Patches of both are 16 px, so proxies are as large as the photos of the
# student. DINOv3's weights are under its own licence, on request:
# https://github.com/facebookresearch/dinov3
_base_ = [
    "../_base_/mmengine_runtime.py",
    "../_base_/models/declip_distill_vitb16.py",
    "../_base_/datasets/coco_distill.py",
    "../_base_/datasets/coco_panoptic_regions.py",
    "../_base_/schedules/declip_44k.py",
]
vfm = dict(
    type="TimmVFM",
    model="dinov3-B",
    precision="bfloat16",
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/dinov3_vitb16_pretrain_lvd1689m.pth"),
)
model = dict(vfms=[vfm])
default_hooks = dict(checkpoint=dict(interval=7393))  # an epoch
custom_hooks = _base_.distill_hooks
train_pipeline = _base_.train_pipeline
train_pipeline[1].proxy_sizes = (560,)  # of DistillViews
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
