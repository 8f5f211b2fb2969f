# F-ViT on OpenAI's CLIP ViT-B/16 distilled by DeCLIP, OV-COCO: attention scaled, as in distilling,
# DeCLIP's temperature, CLIP's own mean and std. Nobody published this detector. Not run here.
# The weights are those of configs/declip/distill_vitb16_openai_dinov2_coco.py.
_base_ = [
    "../_base_/models/fvit_vitb16.py",
    "../_base_/datasets/ov_coco.py",
    "../_base_/schedules/fvit_3e.py",
]
arch = "ViT-B-16-quickgelu"
model = dict(
    data_preprocessor=dict(mean=[122.771, 116.746, 104.094], std=[68.501, 66.632, 70.323]),
    backbone=dict(
        encoder=dict(
            type="DeCLIPViT",
            arch=arch,
            mean=None,
            std=None,
            readout=dict(attention=("qq", "kk"), scale="sqrt"),
            init_cfg=dict(checkpoint="work_dirs/distill_vitb16_openai_dinov2_coco/iter_44358.pth"),
        )
    ),
    roi_head=dict(bbox_head=dict(text_encoder=dict(arch=arch, init_cfg=dict(checkpoint="openai")))),
    test_cfg=dict(rcnn=dict(vlm_temperature=45.0)),
)
