# CAT-Seg on EVA02-CLIP-B/16 distilled by DeCLIP: q-q plus k-k attention in the last block without
# a scale, no residual, no FFN, unit-norm features. Of the image blocks q and v are tuned, of the
# text blocks q, k and v. The weights are DeCLIP's released file.
_base_ = ["./catseg_vitb16.py"]

clip = dict(
    arch="EVA02-B-16",
    init_cfg=dict(
        type="Pretrained", checkpoint="checkpoints/DeCLIP_EVA-B_DINOv2-B_csa_0.05_2.0.pt"
    ),
)
model = dict(
    image_encoder=dict(
        type="DeCLIPViT", readout=dict(_delete_=True, attention=("qq", "kk"), scale="none"), **clip
    ),
    text_encoder=dict(trainable=("q", "k", "v"), **clip),
)
