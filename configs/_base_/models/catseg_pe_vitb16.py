# CAT-Seg on PE-Core ViT-B/16 with the hyper-parameters of CLIP's.
# The values of its last block go through the attention pool, each alone.
_base_ = ["./catseg_vitb16.py"]

clip = dict(arch="PE-Core-B-16", init_cfg=dict(type="Pretrained", checkpoint="meta"))
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    image_encoder=dict(readout="maskclip", positions=None, **clip),
    text_encoder=dict(**clip),
)
