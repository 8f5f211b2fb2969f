# OV-DQUO on OpenAI's CLIP ViT-L/14-336, OV-COCO: the settings of EVA02-CLIP, with CLIP's own mean
# and std. Nobody published this detector. Not run here.
_base_ = [
    "../_base_/models/ovdquo_vitl14-336.py",
    "../_base_/datasets/ov_coco_detr_896.py",
    "../_base_/schedules/ovdquo_30e.py",
]
clip = dict(arch="ViT-L-14-336-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(
    data_preprocessor=dict(mean=[122.771, 116.746, 104.094], std=[68.501, 66.632, 70.323]),
    backbone=dict(encoder=dict(mean=None, std=None, **clip)),
    bbox_head=dict(text_encoder=dict(**clip)),
)
