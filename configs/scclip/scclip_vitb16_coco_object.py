# SC-CLIP, OpenAI ViT-B/16, COCO-Object (80 things and background). Not run here.
# Published: 37.7 mIoU (a secondary source).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_object_sclip.py",
    "../_base_/models/scclip_vitb16.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_coco_object", logit_scale=55.0, prob_thd=0.35),
)
