# CAT-Seg on PE-Core ViT-B/16, tested on PC-459. Nobody published a number; compare mIoU_present.
# Not run here.
#   python tools/test.py configs/pe/catseg_pe_vitb16_pc459.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pc459.py",
    "../_base_/models/catseg_pe_vitb16.py",
]
