# DCLIP with CLIP's ViT-B/32: patch tokens of the last block, through ln_post and the projection.
_base_ = "dclip_rn101.py"
clip = dict(arch="ViT-B-32-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(
    encoder=dict(
        _delete_=True,
        type="CLIPViT",
        readout="vanilla",
        positions="size",
        **clip,
    ),
    text_encoder=dict(**clip),
)
