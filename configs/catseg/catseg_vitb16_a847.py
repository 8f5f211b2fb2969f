# CAT-Seg, ViT-B/16, tested on A-847. Published: 12.0 mIoU (CAT-Seg, CVPR 2024); compare
# mIoU_present. Not run here.
#   python tools/test.py configs/catseg/catseg_vitb16_a847.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_a847.py",
    "../_base_/models/catseg_vitb16.py",
]
