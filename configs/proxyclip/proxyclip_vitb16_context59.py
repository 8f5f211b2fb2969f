# ProxyCLIP, OpenAI ViT-B/16, PASCAL Context (59 classes). Not run here.
# Published: 39.1 mIoU (Trident's table).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/context59_sclip.py",
    "../_base_/models/proxyclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="context59"))
