# CorrCLIP: values mixed within masks by the affinity of DINO's ViT-B/8 (queries and keys of its
# last block), a branch from the blocks in the middle, a branch of CLS copies that each see one
# mask; then every mask votes for one label. MetaCLIP, windows of 336 px every 112, cosines x 40.
# Masks come from a folder, a file a photo (docs/training_free.md); the published rows have SAM 2's.
_base_ = "proxyclip_vitb16.py"
clip = dict(init_cfg=dict(checkpoint="metaclip_fullcc"))
model = dict(
    backbone=dict(readout="corrclip", vfm=dict(feature="q+k"), **clip),
    decode_head=dict(text_encoder=clip),
    masks=dict(type="MaskFolder"),
    refiners=[dict(type="MaskVote")],
)
