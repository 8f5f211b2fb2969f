# SC-CLIP, OpenAI ViT-B/16, PASCAL VOC 2012 with background (21 classes). Not run here.
# Published: 64.6 mIoU (a secondary source).
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/voc21_sclip.py",
    "../_base_/models/scclip_vitb16.py",
]
model = dict(
    decode_head=dict(vocabulary="sclip_voc21", logit_scale=50.0, area_thd=0.1, prob_thd=0.15),
)
