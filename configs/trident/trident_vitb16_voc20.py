# Trident, OpenAI ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 84.5 mIoU (its table, with prompts to SAM).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_trident.py",
    "../_base_/models/trident_vitb16.py",
]
model = dict(
    token_mixer=dict(kappa=0.0),
    decode_head=dict(vocabulary="voc20"),
    test_cfg=dict(stride=(112, 112)),
)
