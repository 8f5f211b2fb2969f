# CLIP-Surgery with its feature surgery on ShapeScenes, nothing trained; the numbers are in
# results/shapes_training_free.json.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/shapes_test.py",
    "../_base_/models/shapes_training_free.py",
]
model = dict(
    backbone=dict(type="CLIPSurgeryViT", readout=dict(blocks=3)),
    decode_head=dict(score_norm="surgery"),
)
