# ClearCLIP, OpenAI ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 51.8 mIoU (ClearCLIP paper, its protocol).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21.py",
    "../_base_/models/clearclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="voc21", prob_thd=0.5))
