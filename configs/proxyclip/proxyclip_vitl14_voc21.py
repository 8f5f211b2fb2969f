# ProxyCLIP, OpenAI ViT-L/14, PASCAL VOC 2012 with background (21 classes). Not run here.
# No published number for this row.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_sclip.py",
    "../_base_/models/proxyclip_vitl14.py",
]
model = dict(decode_head=dict(vocabulary="proxyclip_voc21", prob_thd=0.2))
