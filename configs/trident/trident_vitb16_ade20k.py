# Trident, OpenAI ViT-B/16, ADE20K (150 classes). Not run here.
# Published: 21.9 mIoU (its table, with prompts to SAM).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/ade20k_trident.py",
    "../_base_/models/trident_vitb16.py",
]
model = dict(
    token_mixer=dict(refine_neg=False),
    decode_head=dict(vocabulary="ade20k"),
)
