# OV-DQUO on OpenAI's CLIP RN50x4 for OV-COCO: as RN50, wider.
_base_ = "./ovdquo_vitb16.py"
clip = dict(arch="RN50x4-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(
    data_preprocessor=dict(
        mean=[122.771, 116.746, 104.094], std=[68.501, 66.632, 70.323], pad_size_divisor=1
    ),
    backbone=dict(
        _delete_=True,
        type="OVDQUOResNetBackbone",
        encoder=dict(type="CLIPResNet", **clip),
        region_prompt="checkpoints/region_prompt_R50x4.pth",  # CORA's; None does without
    ),
    neck=dict(in_channels=[640, 1280]),
    bbox_head=dict(text_encoder=dict(**clip), templates="imagenet80"),
)
