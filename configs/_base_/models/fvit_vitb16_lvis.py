# F-ViT on CLIP ViT-B/16 for OV-LVIS: norms in the RPN, a class-agnostic mask head, 300 detections.
_base_ = "./fvit_vitb16.py"
norm_cfg = dict(type="SyncBN")
model = dict(
    data_preprocessor=dict(pad_mask=True, pad_size_divisor=1024),
    rpn_head=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(loss_cls=dict(bg_weight=0.9)),
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            class_agnostic=True,
            num_classes=1,
            norm_cfg=norm_cfg,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True),
        ),
    ),
    train_cfg=dict(rcnn=dict(assigner=dict(match_low_quality=True), mask_size=28)),
    test_cfg=dict(
        rcnn=dict(
            beta=0.6,
            vlm_temperature=50.0,  # DeCLIP: 90
            score_thr=1e-4,
            nms=dict(iou_threshold=0.5),
            max_per_img=300,
            mask_thr_binary=0.5,
        ),
    ),
)
