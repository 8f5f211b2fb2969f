# OV-DQUO on OpenAI's CLIP RN50, OV-LVIS: the settings of OV-COCO's ResNets without CORA's region
# prompt, and the classes, prompts and sampling of OV-LVIS's ViTs. Nobody published this detector.
# Not run here.
_base_ = [
    "../_base_/models/ovdquo_rn50.py",
    "../_base_/datasets/ov_lvis_detr.py",
    "../_base_/schedules/ovdquo_35e.py",
]
model = dict(
    max_classes=100,
    backbone=dict(region_prompt=None),
    bbox_head=dict(templates="vild63"),
    test_cfg=dict(target_class_factor=8.0, max_per_img=300),
)
