# Trident, OpenAI ViT-B/16, PASCAL Context (59 classes). Not run here.
# Published: 42.2 mIoU (its table, with prompts to SAM).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_trident.py",
    "../_base_/models/trident_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
