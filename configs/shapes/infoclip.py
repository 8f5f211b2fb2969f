# InfoCLIP on ShapeScenes: the CAT-Seg of catseg.py, its schedule and its batch, with the transfer
# of the tiny CLIP's own pixel-text alignment. tools/shapes_infoclip.py compares the two.
_base_ = ["./catseg.py"]

model = dict(
    _delete_=True,
    type="InfoCLIP",
    segmentor={{_base_.model}},
    lpam=dict(relation="lpam", residual="cosine"),
    compression=dict(weight=1.0),
    distillation=dict(weight=1.0, kind="mi"),
)
