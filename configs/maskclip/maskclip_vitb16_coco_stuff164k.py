# MaskCLIP, OpenAI ViT-B/16, COCO-Stuff 164k (171 classes). Not run here.
# Published: 16.4 mIoU (TCL paper under its own protocol, quoted by ClearCLIP); the protocol
# here is ClearCLIP's.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k.py",
    "../_base_/models/maskclip_vitb16.py",
]
model = dict(decode_head=dict(vocabulary="coco_stuff164k"))
