# CLIP, OpenAI ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 16.2 mIoU (ClearCLIP paper, its protocol).
# Threshold: the authors' answer to a user (ClearCLIP issue 2); ClearCLIP's own 0.5 gives 10.2.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21.py",
    "../_base_/models/clip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="voc21", prob_thd=0.2))
