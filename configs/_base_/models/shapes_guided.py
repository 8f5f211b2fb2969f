# The tiny CLIP that ships with the package, guided by the vision model that ships with it.
_base_ = "shapes_training_free.py"
model = dict(
    backbone=dict(
        vfm=dict(
            type="TimmVFM",
            model="shapes-vfm",
            init_cfg=dict(type="Pretrained", checkpoint="shapes"),
        )
    )
)
