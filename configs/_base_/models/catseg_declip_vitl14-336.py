# CAT-Seg on EVA02-CLIP-L/14-336 distilled by DeCLIP, see catseg_declip_vitb16.py; views of 384 px
# are shrunk to 336, as in catseg_vitl14-336.py.
_base_ = ["./catseg_vitb16.py"]

clip = dict(
    arch="EVA02-L-14-336",
    init_cfg=dict(
        type="Pretrained", checkpoint="checkpoints/DeCLIP_EVA-L_DINOv2-L_csa_0.05_2.0.pt"
    ),
)
model = dict(
    image_encoder=dict(
        type="DeCLIPViT", readout=dict(_delete_=True, attention=("qq", "kk"), scale="none"), **clip
    ),
    text_encoder=dict(trainable=("q", "k", "v"), **clip),
    clip_size=(336, 336),
    guidance_indices=(7, 15),
)
