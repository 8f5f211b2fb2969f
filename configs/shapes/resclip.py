# ResCLIP's first part on ShapeScenes, nothing trained; the numbers are in
# results/shapes_training_free.json.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/shapes_test.py",
    "../_base_/models/shapes_training_free.py",
]
# Of 4 blocks the two in the middle take the place of the blocks 5 to 8 of 12.
readout = dict(
    attention=dict(kk=1.2, layers=0.8),
    layers=(1, 2),
    neighbours=5.0,
)
model = dict(backbone=dict(readout=readout))
