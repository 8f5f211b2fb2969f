# Region classification of COCO panoptic val2017 by EVA02-CLIP-L/14-336, S=560 (40 x 40 patches).
# The options of regions_vitb16_eva_coco-panoptic.py are those of this config too. DeCLIP's paper
# has no numbers of it. Not run here.
_base_ = ["../_base_/mmengine_runtime.py", "../_base_/datasets/coco_panoptic_regions.py"]
clip = dict(arch="EVA02-L-14-336", init_cfg=dict(type="Pretrained", checkpoint="merged2b_s6b_b61k"))
model = dict(
    type="RegionClassifier",
    encoder=dict(
        type="CLIPViT",
        readout=dict(attention=("qq", "kk"), scale="none"),
        positions="size",
        **clip,
    ),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    templates="vild63",
)
test_pipeline = [
    dict(type="LoadPanopticRegions"),
    dict(type="LetterboxRegions", size=560, patch_size=14),
    dict(type="PackRegions"),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
