# CAT-Seg on EVA02-CLIP-L/14-336 distilled by DeCLIP, see catseg_vitb16_coco-stuff.py. Published
# mIoU (DeCLIP, CVPR 2025): A-847 17.6, PC-459 25.9, A-150 40.7, PC-59 63.9, VOC-20 97.7, VOC-21
# 83.9; before distillation 14.2, 21.3, 34.8, 56.2, 95.8, 80.1. Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco-stuff_catseg.py",
    "../_base_/schedules/catseg_80k.py",
    "../_base_/models/catseg_declip_vitl14-336.py",
]
work_dir = "work_dirs/declip_catseg_vitl14-336_coco-stuff"
