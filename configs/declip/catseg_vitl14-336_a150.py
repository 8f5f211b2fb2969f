# CAT-Seg on EVA02-CLIP-L/14-336 distilled by DeCLIP, tested on A-150. Published: 40.7 mIoU (DeCLIP,
# CVPR 2025); compare mIoU_present. Not run here.
#   python tools/test.py configs/declip/catseg_vitl14-336_a150.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_a150.py",
    "../_base_/models/catseg_declip_vitl14-336.py",
]
work_dir = "work_dirs/declip_catseg_vitl14-336_a150"  # configs/catseg has a file of this name
