# CAT-Seg, ViT-L/14 at 336 px, tested on PAS-20b. Published: 82.5 mIoU (CAT-Seg, CVPR 2024); compare
# mIoU_present. Not run here.
#   python tools/test.py configs/catseg/catseg_vitl14-336_pas20b.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pas20b.py",
    "../_base_/models/catseg_vitl14-336.py",
]
