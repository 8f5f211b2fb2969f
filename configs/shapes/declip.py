# The student of configs/shapes/declip_distill.py compared with class names, csa as it was trained.
# Another readout needs model.backbone.any_readout=True as well; without a checkpoint it is the tiny
# CLIP as it ships. Measured by tools/shapes_declip.py: results/shapes_declip.json.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/shapes_test.py",
    "../_base_/models/shapes_training_free.py",
]
model = dict(backbone=dict(type="DeCLIPViT", readout="csa"))
