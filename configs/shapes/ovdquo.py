# OV-DQUO on ShapeScenes: a small DINO on the frozen tiny CLIP, which names every box. It is taught
# the nine base things, and tested on all twelve.
# The published recipe at this size: 160 px, 64 channels, one layer of encoder and two of decoder,
# 50 queries, batch 8; 900 iterations must teach it, hence a higher rate that falls. The patch is
# half of a B/16's, and levels of 1, 2 and 4 patches have the published strides, 8, 16 and 32 px:
# twice as fast as finer ones, and better (chosen on pictures of another seed, as for fvit.py).
# CLIP's own mean and std; the tiny CLIP's class texts are twice as far apart as CLIP's, and the
# temperatures are lower accordingly, those of fvit.py.
# Unknown things are taught by a file of pseudo boxes, made of the proposals of fvit.py:
#   python tools/dataset_converters/pseudo_boxes.py configs/shapes/fvit.py
#       work_dirs/fvit/iter_700.pth --out data/shapes/annotations/pseudo_boxes.json
#       --min-area 150 --known-iou 0.05 --best 1 --refine
#   python tools/train.py configs/shapes/ovdquo.py
#       --cfg-options train_dataloader.dataset.pseudo_boxes=annotations/pseudo_boxes.json
# Measured by tools/shapes_ovdquo.py: results/shapes_ovdquo.json.
_base_ = ["../_base_/detection_runtime.py", "../_base_/datasets/shapes_detection.py"]
clip = dict(arch="shapes-tiny", init_cfg=dict(type="Pretrained", checkpoint="shapes"))
dims = 64
layer = dict(
    cross_attn_cfg=dict(embed_dims=dims, num_levels=3, num_heads=4, dropout=0.0),
    self_attn_cfg=dict(embed_dims=dims, num_heads=4, dropout=0.0),
    ffn_cfg=dict(embed_dims=dims, feedforward_channels=128, ffn_drop=0.0),
)
model = dict(
    type="OVDQUO",
    num_queries=50,
    num_feature_levels=3,
    max_classes=9,
    query_temperature=14.0,
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[122.771, 116.746, 104.094],
        std=[68.501, 66.632, 70.323],
        bgr_to_rgb=True,
        pad_size_divisor=160,  # all to exactly the square of image_size, with zeros
    ),
    backbone=dict(
        type="OVDQUOViTBackbone",
        encoder=dict(type="CLIPSurgeryViT", readout=dict(blocks=3), **clip),  # as in fvit.py
        out_indices=(1, 2, 3),
        level2="vanilla",  # no level depends on the readout
        level_strides=(1, 2, 4),
    ),
    neck=dict(
        type="ChannelMapper",
        in_channels=[160] * 3,
        kernel_size=1,
        out_channels=dims,
        act_cfg=None,
        bias=True,
        norm_cfg=dict(type="GN", num_groups=8),
        num_outs=3,
    ),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=dims, num_levels=3, num_heads=4, dropout=0.0),
            ffn_cfg=dict(embed_dims=dims, feedforward_channels=128, ffn_drop=0.0),
        ),
    ),
    decoder=dict(num_layers=2, return_intermediate=True, layer_cfg=layer, post_norm_cfg=None),
    positional_encoding=dict(num_feats=dims // 2, normalize=True, offset=0.0, temperature=20),
    bbox_head=dict(
        type="OVDQUOHead",
        embed_dims=dims,
        text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    ),
    dn_cfg=dict(num_queries=50),  # at most 100 of them in a picture
    test_cfg=dict(
        temperature=14.0,
        target_class_factor=1.0,
        score_thr=0.001,
        nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=100,
    ),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, end=30),
    dict(type="CosineAnnealingLR", T_max=870, begin=30, end=900, by_epoch=False),
]
train_cfg = dict(type="ExactIterBasedTrainLoop", max_iters=900, val_interval=900)
