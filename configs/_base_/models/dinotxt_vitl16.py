# dino.txt on DINOv3 ViT-L/16 compared with class names, by the protocol of its notebook:
# windows of 384 px every 192, the 80 prompts, softmax of the cosines as they are. Here it comes
# after the mean over windows, there before.
# Two files of backbone and head; the weights are under the DINOv3 licence and asked for at
# https://github.com/facebookresearch/dinov3
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
    type="OpenVocabSegmentor",
    data_preprocessor=dict(
        type="MixedSizeSegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(type="CLIPViT", readout="vanilla", **clip),
    decode_head=dict(
        type="CosineSegHead",
        text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
        templates="imagenet80",
        logit_scale=1.0,
    ),
    test_cfg=dict(
        mode="slide",
        crop_size=(384, 384),
        stride=(192, 192),
        window_padding="symmetric",
        window_batch_size=16,
    ),
)
