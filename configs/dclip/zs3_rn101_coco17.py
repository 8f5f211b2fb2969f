# DCLIP's projectors, CLIP RN101, COCO-Object: COCO val2017, 80 things and background. Not run here.
# Published: 22.7 mIoU (DCLIP, arXiv 2502.02977 v4); CLIP 3.9, CLIPSurgery 13.0, CLIP-VV 19.9.
# The table does not say which backbone.
# The authors' scripts average an IoU of each image, background ignored (docs/dclip.md); here it is
# the usual mIoU, so expect other numbers.
# Background where no class has a probability of 0.85; the right value depends on the classes.
# CLIP-VV: --cfg-options model.decode_head.projector=None
# Labels are things of COCO-Stuff's maps; the authors' are painted from instances.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object.py",
    "../_base_/models/dclip_zs3_rn101.py",
]
model = dict(decode_head=dict(background="threshold", prob_thd=0.85))
test_pipeline = _base_.zs3_pipeline
val_dataloader = _base_.zs3_dataset
test_dataloader = _base_.zs3_dataset
