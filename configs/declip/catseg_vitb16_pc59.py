# CAT-Seg on EVA02-CLIP-B/16 distilled by DeCLIP, tested on PC-59. Published: 60.6 mIoU (DeCLIP,
# CVPR 2025, 60.89 by the released checkpoint); compare mIoU_present. Not run here.
#   python tools/test.py configs/declip/catseg_vitb16_pc59.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pc59.py",
    "../_base_/models/catseg_declip_vitb16.py",
]
work_dir = "work_dirs/declip_catseg_vitb16_pc59"  # configs/catseg has a file of this name
