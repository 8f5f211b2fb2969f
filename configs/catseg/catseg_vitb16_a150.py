# CAT-Seg, ViT-B/16, tested on A-150. Published: 31.8 mIoU (CAT-Seg, CVPR 2024); compare
# mIoU_present. Not run here.
#   python tools/test.py configs/catseg/catseg_vitb16_a150.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_a150.py",
    "../_base_/models/catseg_vitb16.py",
]
