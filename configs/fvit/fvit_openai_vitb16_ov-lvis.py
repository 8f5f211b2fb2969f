# F-ViT on OpenAI's CLIP ViT-B/16, OV-LVIS: CLIPSelf's settings, with CLIP's own mean and std.
# Nobody published this detector. Not run here.
_base_ = [
    "../_base_/models/fvit_vitb16_lvis.py",
    "../_base_/datasets/ov_lvis.py",
    "../_base_/schedules/fvit_48e.py",
]
clip = dict(arch="ViT-B-16-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(
    data_preprocessor=dict(mean=[122.771, 116.746, 104.094], std=[68.501, 66.632, 70.323]),
    backbone=dict(encoder=dict(mean=None, std=None, **clip)),
    roi_head=dict(bbox_head=dict(text_encoder=dict(**clip))),
)
