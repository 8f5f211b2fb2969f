# OV-DQUO on OpenAI's CLIP RN50x4, OV-LVIS: the settings of OV-COCO's ResNets without CORA's region
# prompt, and the classes, prompts and sampling of OV-LVIS's ViTs. Nobody published this detector.
# Not run here.
_base_ = [
    "../_base_/models/ovdquo_rn50x4.py",
    "../_base_/datasets/ov_lvis_detr.py",
    "../_base_/schedules/ovdquo_35e.py",
]
train_dataloader = dict(batch_size=3)
auto_scale_lr = dict(base_batch_size=24)
model = dict(
    max_classes=100,
    backbone=dict(region_prompt=None),
    bbox_head=dict(templates="vild63"),
    test_cfg=dict(target_class_factor=8.0, max_per_img=300),
)
