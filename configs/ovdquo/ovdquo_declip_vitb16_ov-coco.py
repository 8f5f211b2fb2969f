# OV-DQUO on EVA02-CLIP-B/16 distilled by DeCLIP, OV-COCO.
# Published AP50 (DeCLIP, CVPR 2025): novel 46.1, base 56.3, all 53.6. Not run here.
#   python tools/train.py configs/ovdquo/ovdquo_declip_vitb16_ov-coco.py
# The authors released neither code nor config of it. Their paper says that the temperature becomes
# 50; we take it for that of the score, which counts in test alone. It may have been that of the
# queries, too (model.query_temperature). Size, blocks and statistics are those of OV-DQUO's ViTs on
# OV-LVIS; what else is open stands in docs/ovdquo.md.
# The readout is that of the weights ("csa"); those distilled with q-q attention alone need ("qq",).
# Weights of your own: configs/declip/distill_vitb16_eva_dinov2_coco.py, and then
#   --cfg-options model.backbone.encoder.init_cfg.checkpoint=work_dirs/.../iter_44358.pth
#       model.bbox_head.text_encoder.init_cfg.checkpoint=merged2b_s8b_b131k
_base_ = [
    "../_base_/models/ovdquo_vitb16.py",
    "../_base_/datasets/ov_coco_detr_1024.py",
    "../_base_/schedules/ovdquo_30e.py",
]
clip = dict(
    arch="EVA02-B-16",
    init_cfg=dict(
        type="Pretrained", checkpoint="checkpoints/DeCLIP_EVA-B_DINOv2-B_csa_0.05_2.0.pt"
    ),
)
model = dict(
    backbone=dict(
        encoder=dict(type="DeCLIPViT", readout=dict(attention=("qq", "kk"), scale="none"), **clip)
    ),
    bbox_head=dict(text_encoder=dict(**clip)),
    test_cfg=dict(temperature=50.0),
)
