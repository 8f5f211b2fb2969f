# GEM on ShapeScenes, nothing trained; the numbers are in
# results/shapes_training_free.json.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/shapes_test.py",
    "../_base_/models/shapes_training_free.py",
]
# Three of 4 blocks have the second stream (6 of 12 in the paper).
model = dict(backbone=dict(type="GEMViT", readout=dict(blocks=3, attention=("gem",))))
