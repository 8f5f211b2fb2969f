# CAT-Seg on SigLIP 2 ViT-B/16, trained on COCO-Stuff with the hyper-parameters of CLIP's.
# Not run here.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco-stuff_catseg.py",
    "../_base_/schedules/catseg_80k.py",
    "../_base_/models/catseg_siglip2_vitb16.py",
]
