# DeCLIP on EVA02-CLIP-B/16 with DINOv2-B (registers) as the context teacher, COCO train2017.
#   python tools/train.py configs/declip/distill_vitb16_eva_dinov2_coco.py --amp
# Needs data/coco (train2017, and panoptic val2017 for validation), EVA's weights (open_clip fetches
# them, or a local file) and checkpoints/dinov2_vitb14_reg4_pretrain.pth.
# Published at S=560 (DeCLIP, CVPR 2025, Table 11, weight 0.25): mAcc things 72.2, stuff 51.3;
# mIoU Context59 38.7, ADE 21.8. Of a run without gradient synchronisation; not run here.
_base_ = [
    "../_base_/mmengine_runtime.py",
    "../_base_/models/declip_distill_vitb16.py",
    "../_base_/datasets/coco_distill.py",
    "../_base_/datasets/coco_panoptic_regions.py",
    "../_base_/schedules/declip_44k.py",
]
default_hooks = dict(checkpoint=dict(interval=7393))  # an epoch
custom_hooks = _base_.distill_hooks
