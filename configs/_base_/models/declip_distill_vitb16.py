# DeCLIP's distillation: the student EVA02-CLIP-B/16 with its own copy as the teacher of content,
# DINOv2-B with registers as that of context, and a classifier of regions for validation.
clip = dict(arch="EVA02-B-16", init_cfg=dict(type="Pretrained", checkpoint="merged2b_s8b_b131k"))
model = dict(
    type="DeCLIP",
    data_preprocessor=dict(type="DistillDataPreprocessor"),
    student=dict(
        type="CLIPViT",
        # Q+K, as the released weights; the code trains it without 1 / sqrt(d), which eq. 6 has
        readout=dict(attention=("qq", "kk"), scale="none"),
        positions="size",
        trainable=("blocks",),
        **clip,
    ),
    vfms=[
        dict(
            type="TimmVFM",
            model="dinov2-B",
            precision="float16",
            init_cfg=dict(
                type="Pretrained", checkpoint="checkpoints/dinov2_vitb14_reg4_pretrain.pth"
            ),
        )
    ],
    content_loss=dict(type="ContentLoss", loss_weight=1.0),
    context_loss=dict(type="ContextCorrelationLoss", loss_weight=0.25),
    region_classifier=dict(text_encoder=dict(type="OpenCLIPTextEncoder", **clip)),
)
