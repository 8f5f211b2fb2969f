# CLIP, OpenAI ViT-L/14, PASCAL VOC 2012 with background (21 classes). Not run here.
# No published number for this backbone with background.
# Threshold: that of ViT-B/16; none is published for this backbone.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21.py",
    "../_base_/models/clip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="voc21", prob_thd=0.2))
