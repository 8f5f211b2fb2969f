# CAT-Seg on SigLIP 2 ViT-B/16 with the hyper-parameters of CLIP's.
# The values of its last block go through the attention pool, each alone. Of its sizes that of
# CAT-Seg's photos, 384 px. tokenizer.json is of google/siglip2-base-patch16-384.
_base_ = ["./catseg_vitb16.py"]

clip = dict(arch="ViT-B-16-SigLIP2-384", init_cfg=dict(type="Pretrained", checkpoint="webli"))
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    image_encoder=dict(readout="maskclip", positions=None, **clip),
    text_encoder=dict(**clip, tokenizer="checkpoints/siglip2/tokenizer.json"),
)
