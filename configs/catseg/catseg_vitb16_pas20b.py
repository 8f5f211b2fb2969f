# CAT-Seg, ViT-B/16, tested on PAS-20b. Published: 77.3 mIoU (CAT-Seg, CVPR 2024); compare
# mIoU_present. Not run here.
#   python tools/test.py configs/catseg/catseg_vitb16_pas20b.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pas20b.py",
    "../_base_/models/catseg_vitb16.py",
]
