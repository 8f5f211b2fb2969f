# DCLIP, CLIP RN101, PASCAL VOC 2007, on features that are computed once:
#   python tools/train.py configs/dclip/dclip_rn101_voc2007_cached.py --cache-features DIR
# Not the published training: an image must look the same in every epoch, so there is no random
# rectangle and no RandAugment. No number is published. Not run here.
_base_ = [
    "../_base_/datasets/voc2007_multilabel.py",
    "../_base_/models/dclip_rn101.py",
    "../_base_/schedules/dclip_50e.py",
]
train_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
# Once, at the end: a validation runs CLIP on 4,952 images, as many as the pass that is saved.
train_cfg = dict(val_interval=50)
