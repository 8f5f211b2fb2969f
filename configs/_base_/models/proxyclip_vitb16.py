# ProxyCLIP: the values of CLIP's last block mixed by the affinity of DINO's ViT-B/8, no residual,
# no FFN. Windows of 336 px every 112, padded to whole patches of both, cosines x 40. DINO's file
# must be at this path, or is named by --cfg-options
# model.backbone.vfm.init_cfg.checkpoint=FILE
_base_ = "clip_vitb16.py"
model = dict(
    backbone=dict(
        readout="proxyclip",
        vfm=dict(
            type="TimmVFM",
            model="dino-B-8",
            init_cfg=dict(type="Pretrained", checkpoint="checkpoints/dino_vitbase8_pretrain.pth"),
        ),
    ),
    decode_head=dict(logit_scale=40.0),
    test_cfg=dict(crop_size=(336, 336), stride=(112, 112)),
)
