# DCLIP, CLIP RN101, COCO 2014, on features that are computed once:
#   python tools/train.py configs/dclip/dclip_rn101_coco14_cached.py --cache-features DIR
# Not the published training: an image must look the same in every epoch, so there is no random
# rectangle and no RandAugment. No number is published. Not run here.
_base_ = [
    "../_base_/datasets/coco14_multilabel.py",
    "../_base_/models/dclip_rn101.py",
    "../_base_/schedules/dclip_50e.py",
]
train_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
# Once, at the end: a validation runs CLIP on 40,137 images, half of the pass that is saved.
train_cfg = dict(val_interval=50)
