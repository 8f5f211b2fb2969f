# InfoCLIP on CAT-Seg, ViT-B/16, trained on COCO-Stuff. Published mIoU (InfoCLIP, AAAI 2026): A-847
# 12.6, PC-459 19.5, A-150 32.1, PC-59 58.1, PAS-20 95.5, PAS-20b 78.1. Not run here.
# 4 images on one GPU, as published; several GPUs share one Gram matrix.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco-stuff_catseg.py",
    "../_base_/schedules/catseg_80k.py",
    "../_base_/models/catseg_vitb16.py",
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
