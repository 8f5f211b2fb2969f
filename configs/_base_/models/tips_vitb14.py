# TIPSv2 ViT-B/14 compared with class names, nothing trained, by the protocol of its notebook:
# windows of 448 px every 336, nine prompts, softmax of the cosines as they are. Here it comes
# after the mean over windows, there before.
# Two files of image and text, and its tokenizer.model, from the page of its authors:
# https://github.com/google-deepmind/tips
_base_ = "clip_vitb16.py"
clip = dict(
    arch="TIPSv2-B-14",
    init_cfg=dict(
        type="Pretrained",
        checkpoint=[
            "checkpoints/tips_v2_oss_b14_vision.npz",
            "checkpoints/tips_v2_oss_b14_text.npz",
        ],
    ),
)
model = dict(
    data_preprocessor=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
    backbone=dict(readout="maskclip", **clip),
    decode_head=dict(
        text_encoder=dict(tokenizer="checkpoints/tips/tokenizer.model", **clip),
        templates="tcl9",
        logit_scale=1.0,
    ),
    test_cfg=dict(stride=(336, 336)),
)
