# SC-CLIP, OpenAI ViT-B/16, PASCAL VOC 2012 without background (20 classes). Not run here.
# Published: 84.3 mIoU (a secondary source).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc20_sclip.py",
    "../_base_/models/scclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="sclip_voc20"))
