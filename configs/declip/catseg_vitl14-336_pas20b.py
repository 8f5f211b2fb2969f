# CAT-Seg on EVA02-CLIP-L/14-336 distilled by DeCLIP, tested on PAS-20b. Published: 83.9 mIoU
# (DeCLIP, CVPR 2025); compare mIoU_present. Not run here.
#   python tools/test.py configs/declip/catseg_vitl14-336_pas20b.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pas20b.py",
    "../_base_/models/catseg_declip_vitl14-336.py",
]
work_dir = "work_dirs/declip_catseg_vitl14-336_pas20b"  # configs/catseg has a file of this name
