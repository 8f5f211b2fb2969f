# DeCLIP on EVA02-CLIP-B/16 with DINOv2-B (registers) as the context teacher, COCO train2017.
#   python tools/train.py configs/declip/distill_vitb16_eva_dinov2_coco.py --amp
# Needs data/coco (train2017, and panoptic val2017 for validation), EVA's weights (open_clip fetches
# them, or a local file) and checkpoints/dinov2_vitb14_reg4_pretrain.pth.
# Published at S=560 (DeCLIP, CVPR 2025, Table 11, weight 0.25): mAcc things 72.2, stuff 51.3;
# mIoU Context59 38.7, ADE 21.8. Of a run without gradient synchronisation; not run here.
_base_ = [
    "../_base_/mmengine_runtime.py",
    "../_base_/datasets/coco_distill.py",
    "../_base_/datasets/coco_panoptic_regions.py",
    "../_base_/schedules/declip_44k.py",
]
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
default_hooks = dict(checkpoint=dict(interval=7393))  # an epoch
custom_hooks = [
    dict(type="VocabularyHook"),
    dict(type="NonFiniteGuard"),
    dict(type="ReplacedImagesHook"),
    dict(type="WeightEnsembleHook", alpha=0.7),  # released: 0.7 for B, 0.95 for L
]
