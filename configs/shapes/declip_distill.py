# DeCLIP on ShapeScenes: the tiny CLIP learns content from its own crops and context from a small
# vision model that was pretrained on the pictures alone (tools/pretrain_shapes_vfm.py).
# The published recipe at this size (160 px = 20 x 20 tokens, batch 6), with a higher rate, grids of
# up to 10 x 10 cells, so that things fill a cell at times, and a weaker context: docs/declip.md.
# Measured by tools/shapes_declip.py: results/shapes_declip.json.
_base_ = [
    "../_base_/mmengine_runtime.py",
    "../_base_/datasets/shapes_distill.py",
    "../_base_/datasets/shapes_regions.py",
]
clip = dict(arch="shapes-tiny", init_cfg=dict(type="Pretrained", checkpoint="shapes"))
model = dict(
    type="DeCLIP",
    data_preprocessor=dict(type="DistillDataPreprocessor"),
    student=dict(type="DeCLIPViT", readout="csa", trainable=("blocks",), **clip),
    vfms=[
        dict(
            type="TimmVFM",
            model="shapes-vfm",
            init_cfg=dict(type="Pretrained", checkpoint="shapes"),
        )
    ],
    content_loss=dict(type="ContentLoss", loss_weight=1.0),
    context_loss=dict(type="ContextCorrelationLoss", loss_weight=0.005),
    region_classifier=dict(
        text_encoder=dict(type="OpenCLIPTextEncoder", **clip), templates="vild63"
    ),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=8e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, end=20),
    dict(type="CosineAnnealingLR", T_max=280, begin=20, end=300, by_epoch=False),
]
train_cfg = dict(type="ExactIterBasedTrainLoop", max_iters=300, val_interval=300)
custom_hooks = [
    dict(type="VocabularyHook"),
    dict(type="NonFiniteGuard"),
    dict(type="ReplacedImagesHook"),
    dict(type="WeightEnsembleHook", alpha=0.7),
]
