# OV-DQUO on OpenAI's CLIP RN50, OV-COCO.
# Published AP50 (OV-DQUO, AAAI 2025): novel 39.2. Not run here.
# Put CORA's region prompt at the path that the base names; model.backbone.region_prompt=None does
# without.
#   python tools/train.py configs/ovdquo/ovdquo_openai_rn50_ov-coco.py
_base_ = [
    "../_base_/models/ovdquo_rn50.py",
    "../_base_/datasets/ov_coco_detr.py",
    "../_base_/schedules/ovdquo_30e.py",
]
