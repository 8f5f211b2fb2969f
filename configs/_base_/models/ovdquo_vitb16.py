# OV-DQUO on CLIP ViT-B/16 for OV-COCO: DINO with three levels and 1000 queries on a frozen CLIP,
# which gives the classes. Blocks, size and statistics are those of the released code on OV-LVIS;
# for OV-COCO it has ResNets only. Configs name the weights.
clip = dict(
    arch="EVA02-B-16", init_cfg=dict(type="Pretrained", checkpoint="merged2b_s8b_b131k")
)  # also where the text of classes and queries comes from
attention = dict(embed_dims=256, num_heads=8, dropout=0.0)
deformable = dict(embed_dims=256, num_levels=3, dropout=0.0)
ffn = dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.0)
model = dict(
    type="OVDQUO",
    num_queries=1000,
    num_feature_levels=3,
    with_box_refine=True,
    as_two_stage=True,
    text_queries=True,  # False: learned queries alone
    query_temperature=100.0,
    max_classes=48,  # classes of an iteration; the table of labels has one more, of the wildcard
    # ImageNet's statistics, as it was trained; they are not CLIP's. The divisor pads all to exactly
    # the square of the data set's image_size, with zeros after normalisation.
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1024,
    ),
    backbone=dict(
        type="OVDQUOViTBackbone",
        encoder=dict(
            type="MaskCLIPViT",
            mean=[0.485, 0.456, 0.406],  # the weights' own are CLIP's; None takes these
            std=[0.229, 0.224, 0.225],
            **clip,
        ),
        out_indices=(5, 7, 11),
    ),
    neck=dict(
        type="ChannelMapper",
        in_channels=[768] * 3,
        kernel_size=1,
        out_channels=256,
        act_cfg=None,
        bias=True,
        norm_cfg=dict(type="GN", num_groups=32),
        num_outs=3,
    ),
    encoder=dict(num_layers=6, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=6,
        return_intermediate=True,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn),
        post_norm_cfg=None,
    ),
    positional_encoding=dict(num_feats=128, normalize=True, offset=0.0, temperature=20),
    bbox_head=dict(
        type="OVDQUOHead",
        text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
        templates="vild63",
        wildcard="object",
    ),
    dn_cfg=dict(num_queries=100, label_noise=0.25, box_noise_scale=1.0),
    test_cfg=dict(
        temperature=100.0,  # DeCLIP: 50
        target_class_factor=3.0,
        score_thr=0.001,
        nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=100,
    ),
)
