# InfoCLIP on CAT-Seg, ViT-L/14 at 336 px, trained on COCO-Stuff. Published mIoU (InfoCLIP, AAAI
# 2026): A-847 16.6, PC-459 24.6, A-150 38.5, PC-59 63.5, PAS-20 97.5, PAS-20b 83.1. Not run here.
# 4 images on one GPU, as published; several GPUs share one Gram matrix.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco-stuff_catseg.py",
    "../_base_/schedules/catseg_80k.py",
    "../_base_/models/catseg_vitl14-336.py",
]
model = dict(
    _delete_=True,
    type="InfoCLIP",
    segmentor={{_base_.model}},
    lpam=dict(relation="lpam", residual="cosine"),
    compression=dict(weight=1.0),
    distillation=dict(weight=1.0, kind="mi"),
    alpha=2.0,
    gram_axis="batch",
)
