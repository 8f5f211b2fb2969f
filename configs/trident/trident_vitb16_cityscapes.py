# Trident, OpenAI ViT-B/16, Cityscapes (19 classes). Not run here.
# Published: 42.9 mIoU (its table, with prompts to SAM).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/cityscapes_trident.py",
    "../_base_/models/trident_vitb16.py",
]
model = dict(
    token_mixer=dict(kappa=3.0, refine_neg=False, splits=(1, 2)),
    decode_head=dict(vocabulary="cityscapes"),
)
