# Trident, OpenAI ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 38.6 mIoU (its table, with prompts to SAM).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_trident.py",
    "../_base_/models/trident_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context60", prob_thd=0.15))
