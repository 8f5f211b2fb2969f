# ProxyCLIP, OpenAI ViT-B/16, PASCAL Context with background (60 classes). Not run here.
# Published: 35.3 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context60_sclip.py",
    "../_base_/models/proxyclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context60", prob_thd=0.15))
