# OV-DQUO on OpenAI's CLIP RN50x4, OV-COCO.
# Published AP50 (OV-DQUO, AAAI 2025): novel 45.6. Not run here.
# Batches of 24, as published. CORA's region prompt: see ovdquo_openai_rn50_ov-coco.py.
_base_ = [
    "../_base_/models/ovdquo_rn50x4.py",
    "../_base_/datasets/ov_coco_detr.py",
    "../_base_/schedules/ovdquo_30e.py",
]
train_dataloader = dict(batch_size=3)
auto_scale_lr = dict(base_batch_size=24)
