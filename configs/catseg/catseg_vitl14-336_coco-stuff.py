# CAT-Seg, ViT-L/14 at 336 px, trained on COCO-Stuff. Published mIoU (CVPR 2024): A-847 16.0,
# PC-459 23.8, A-150 37.9, PC-59 63.3, PAS-20 97.0, PAS-20b 82.5. Not run here. Released weights:
# tools/model_converters/catseg.py model_large.pth OUT.pth
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco-stuff_catseg.py",
    "../_base_/schedules/catseg_80k.py",
    "../_base_/models/catseg_vitl14-336.py",
]
