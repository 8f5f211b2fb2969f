# DCLIP's projectors, CLIP RN101, ADE20K (150 classes). Not run here.
# Published as a bar of Figure 6 only, no number.
# The authors' scripts average an IoU of each image, background ignored (docs/dclip.md); here it is
# the usual mIoU, so expect other numbers.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/models/dclip_zs3_rn101.py",
]
test_pipeline = _base_.zs3_pipeline
val_dataloader = _base_.zs3_dataset
test_dataloader = _base_.zs3_dataset
