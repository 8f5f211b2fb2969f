# NACLIP on ShapeScenes, nothing trained; the numbers are in
# results/shapes_training_free.json.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/shapes_test.py",
    "../_base_/models/shapes_training_free.py",
]
model = dict(backbone=dict(readout="naclip"))
