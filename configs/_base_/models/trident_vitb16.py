# Trident without its prompts: ProxyCLIP with DINO's ViT-B/16 in windows of 336 px every 224, whose
# tokens are put together and mixed once more by the last attention of SAM's ViT-B; then the head.
# The published rows let SAM refine the labels by prompts as well, which is not here. Files of DINO
# and SAM must be at these paths, or are named by --cfg-options
#     model.backbone.vfm.init_cfg.checkpoint=FILE model.token_mixer.init_cfg.checkpoint=FILE
_base_ = "proxyclip_vitb16.py"
model = dict(
    backbone=dict(
        vfm=dict(
            model="dino-B-16", init_cfg=dict(checkpoint="checkpoints/dino_vitbase16_pretrain.pth")
        )
    ),
    token_mixer=dict(
        type="SAMMatrix",
        model="sam-B",
        kappa=1.2,
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/sam_vit_b_01ec64.pth"),
    ),
    test_cfg=dict(stride=(224, 224), stitch="tokens"),
)
