# CAT-Seg on SigLIP 2 ViT-B/16, tested on PAS-20. Nobody published a number; compare mIoU_present.
# Not run here.
#   python tools/test.py configs/siglip2/catseg_siglip2_vitb16_pas20.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pas20.py",
    "../_base_/models/catseg_siglip2_vitb16.py",
]
