# SCLIP on ShapeScenes, nothing trained; results/shapes_segmentation.json has the numbers.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/shapes_test.py",
    "../_base_/models/shapes_training_free.py",
]
model = dict(backbone=dict(type="SCLIPViT"))
