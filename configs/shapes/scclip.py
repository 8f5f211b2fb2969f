# SC-CLIP on ShapeScenes, nothing trained; the numbers are in
# results/shapes_training_free.json.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/shapes_test.py",
    "../_base_/models/shapes_training_free.py",
]
# Of 4 blocks 2 and 1 take the place of the blocks 8 and 3 of 12, and of 3 to 9.
model = dict(backbone=dict(readout=dict(deep=2, mid=1, summed=(1, 2))))
