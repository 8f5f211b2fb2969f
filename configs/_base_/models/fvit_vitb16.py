# F-ViT on CLIP ViT-B/16 for OV-COCO, with CLIPSelf's readout (MaskCLIP's: values only, residual and
# FFN kept) and temperature. Configs name the weights. Values are those of the released code.
clip = dict(
    arch="EVA02-B-16", init_cfg=dict(type="Pretrained", checkpoint="merged2b_s8b_b131k")
)  # also where F-ViT's text comes from
norm_cfg = dict(type="SyncBN")
proposals = dict(
    nms_pre=2000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
)
model = dict(
    type="FViT",
    # ImageNet's statistics, as F-ViT was trained; they are not CLIP's. The divisor pads all to
    # exactly the square of the data set's image_size, with zeros after normalisation.
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=640,
    ),
    backbone=dict(
        type="FViTBackbone",
        encoder=dict(
            type="MaskCLIPViT",
            mean=[0.485, 0.456, 0.406],  # the weights' own are CLIP's; None takes these
            std=[0.229, 0.224, 0.225],
            **clip,
        ),
        out_indices=(3, 5, 7, 11),
        norm_cfg=norm_cfg,
    ),
    neck=dict(type="FPN", in_channels=[768] * 4, out_channels=256, num_outs=5, norm_cfg=norm_cfg),
    rpn_head=dict(
        type="FViTRPNHead",  # stock layers; proposals in fp32 under AMP
        in_channels=256,
        feat_channels=256,
        num_convs=2,
        anchor_generator=dict(
            type="AnchorGenerator",
            scales=[8],
            ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True),
        loss_bbox=dict(type="L1Loss"),
    ),
    roi_head=dict(
        type="FViTRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        bbox_head=dict(
            type="FViTBBoxHead",
            text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
            in_channels=256,
            conv_out_channels=256,
            fc_out_channels=512,
            detect_temperature=50.0,
            norm_cfg=norm_cfg,
            bbox_coder=dict(
                type="DeltaXYWHBBoxCoder",
                target_means=[0.0] * 4,
                target_stds=[0.1, 0.1, 0.2, 0.2],
            ),
            loss_cls=dict(type="NovelMaskedCrossEntropyLoss", bg_weight=0.6),
            loss_bbox=dict(type="L1Loss"),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type="RandomSampler",
                num=256,
                pos_fraction=0.5,
                neg_pos_ub=-1,
                add_gt_as_proposals=False,
            ),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=proposals,
        rcnn=dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type="RandomSampler",
                num=512,
                pos_fraction=0.25,
                neg_pos_ub=-1,
                add_gt_as_proposals=True,
            ),
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=proposals,
        rcnn=dict(
            alpha=0.1,
            beta=0.8,
            vlm_temperature=75.0,  # DeCLIP: 45
            score_thr=0.01,
            nms=dict(type="nms", iou_threshold=0.4),
            max_per_img=100,
        ),
    ),
)
