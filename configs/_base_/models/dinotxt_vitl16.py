# dino.txt on DINOv3 ViT-L/16 compared with class names, by the protocol of its notebook:
# windows of 384 px every 192, the 80 prompts, softmax of the cosines as they are. Here it comes
# after the mean over windows, there before.
# Two files of backbone and head; the weights are under the DINOv3 licence and asked for at
# https://github.com/facebookresearch/dinov3
_base_ = "clip_vitb16.py"
clip = dict(
    arch="dinotxt-v3-L-16",
    init_cfg=dict(
        type="Pretrained",
        checkpoint=[
            "checkpoints/dinov3_vitl16_pretrain_lvd1689m.pth",
            "checkpoints/dinov3_vitl16_dinotxt_vision_head_and_text_encoder.pth",
        ],
    ),
)
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(readout="vanilla", **clip),
    decode_head=dict(text_encoder=dict(**clip), logit_scale=1.0),
    test_cfg=dict(crop_size=(384, 384), stride=(192, 192)),
)
