# DeCLIP of PE-Core ViT-B/16, with DINOv3-B/16 as the teacher of context. Not run here.
# Patches of both are 16 px, so proxies are as large as the photos of the student.
_base_ = ["../declip/distill_vitb16_openai_dinov2_coco.py"]
clip = dict(arch="PE-Core-B-16", init_cfg=dict(type="Pretrained", checkpoint="meta"))
model = dict(
    student=dict(positions=None, **clip),
    vfms=[
        dict(
            type="TimmVFM",
            model="dinov3-B",
            precision="bfloat16",
            init_cfg=dict(
                type="Pretrained", checkpoint="checkpoints/dinov3_vitb16_pretrain_lvd1689m.pth"
            ),
        )
    ],
    region_classifier=dict(text_encoder=dict(**clip)),
)
train_pipeline = [
    dict(type="LoadPILImage"),
    dict(type="DistillViews", size=560, proxy_sizes=(560,)),
    dict(type="GridCrops", crop_size=224, max_split=6, max_boxes=20),
    dict(type="PackDistillInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
