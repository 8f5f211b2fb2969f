# CAT-Seg on EVA02-CLIP-B/16 distilled by DeCLIP. Published mIoU (DeCLIP, CVPR 2025): A-847 15.3,
# PC-459 21.4, A-150 36.3, PC-59 60.6, VOC-20 96.6, VOC-21 81.3; on EVA02-CLIP before distillation
# 11.9, 17.6, 30.4, 52.3, 94.2, 74.2. Not run here.
# The weights are DeCLIP's released file, or a run of distill_vitb16_eva_dinov2_coco.py with
#   --cfg-options model.image_encoder.init_cfg.checkpoint=work_dirs/.../iter_44358.pth
#       model.text_encoder.init_cfg.checkpoint=merged2b_s8b_b131k
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco-stuff_catseg.py",
    "../_base_/schedules/catseg_80k.py",
    "../_base_/models/catseg_declip_vitb16.py",
]
work_dir = "work_dirs/declip_catseg_vitb16_coco-stuff"  # configs/catseg has a file of this name
