# Trident, OpenAI ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 67.1 mIoU (its table, with prompts to SAM).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_trident.py",
    "../_base_/models/trident_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="proxyclip_voc21", prob_thd=0.2))
