# CAT-Seg on EVA02-CLIP-B/16 distilled by DeCLIP, tested on PAS-20. Published: 96.6 mIoU (DeCLIP,
# CVPR 2025, 96.68 by the released checkpoint); compare mIoU_present. Not run here.
#   python tools/test.py configs/declip/catseg_vitb16_pas20.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pas20.py",
    "../_base_/models/catseg_declip_vitb16.py",
]
work_dir = "work_dirs/declip_catseg_vitb16_pas20"  # configs/catseg has a file of this name
