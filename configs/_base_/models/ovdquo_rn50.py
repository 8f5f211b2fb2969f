# OV-DQUO on OpenAI's CLIP RN50 for OV-COCO: C3 and C4 are its levels, a strided convolution of the
# neck makes the third. Nothing of the backbone is trained. CLIP's own mean and std, the 80 prompts
# of ImageNet, images of any shape.
_base_ = "./ovdquo_vitb16.py"
clip = dict(arch="RN50-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(
    data_preprocessor=dict(
        mean=[122.771, 116.746, 104.094], std=[68.501, 66.632, 70.323], pad_size_divisor=1
    ),
    backbone=dict(
        _delete_=True,
        type="OVDQUOResNetBackbone",
        encoder=dict(type="CLIPResNet", **clip),
        region_prompt="checkpoints/region_prompt_R50.pth",  # CORA's; None does without
    ),
    neck=dict(in_channels=[512, 1024]),
    bbox_head=dict(text_encoder=dict(**clip), templates="imagenet80"),
)
