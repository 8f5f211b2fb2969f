# CAT-Seg, ViT-L/14 at 336 px, tested on PC-59. Published: 63.3 mIoU (CAT-Seg, CVPR 2024); compare
# mIoU_present. Not run here.
#   python tools/test.py configs/catseg/catseg_vitl14-336_pc59.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pc59.py",
    "../_base_/models/catseg_vitl14-336.py",
]
