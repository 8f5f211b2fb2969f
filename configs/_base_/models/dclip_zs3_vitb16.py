# DCLIP's zero-shot segmentation with CLIP's ViT-B/16: CLIP-Surgery's second stream, of values that
# attend to values in the last six blocks.
_base_ = "dclip_zs3_rn101.py"
clip = dict(arch="ViT-B-16-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(
    backbone=dict(_delete_=True, type="CLIPSurgeryViT", **clip),
    decode_head=dict(
        text_encoder=dict(**clip), projector="work_dirs/dclip_vitb16_coco14/epoch_50.pth"
    ),
)
