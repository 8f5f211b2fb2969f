# The projectors of configs/shapes/dclip.py segment: the map of the tiny CLIP and the class names
# both projected. Whole pictures at 160 x 160, as in the training. Without projectors
#   --cfg-options model.decode_head.projector=None
# it is MaskCLIP at that size. Another readout: model.backbone.readout=vanilla
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/shapes_test.py",
    "../_base_/models/shapes_training_free.py",
]
model = dict(
    backbone=dict(type="MaskCLIPViT"),
    decode_head=dict(
        projector="work_dirs/dclip/epoch_10.pth", templates=("a photo of a {}.",), logit_scale=100
    ),
    test_cfg=dict(_delete_=True, mode="whole"),
)
test_pipeline = _base_.test_pipeline
test_pipeline.insert(1, dict(type="Resize", scale=(160, 160), keep_ratio=False))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
