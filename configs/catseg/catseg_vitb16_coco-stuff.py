# CAT-Seg, ViT-B/16, trained on COCO-Stuff. Published mIoU (CVPR 2024): A-847 12.0, PC-459 19.0,
# A-150 31.8, PC-59 57.5, PAS-20 94.6, PAS-20b 77.3. Not run here. Released weights:
# tools/model_converters/catseg.py model_base.pth OUT.pth
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco-stuff_catseg.py",
    "../_base_/schedules/catseg_80k.py",
    "../_base_/models/catseg_vitb16.py",
]
