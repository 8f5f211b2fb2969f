"""The configs of F-ViT: published values, and an iteration of training and testing at tiny size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mmclipdis.engine.random_weights import take_as_meant
from tests.paths import ROOT

pytest.importorskip("mmdet")

from mmdet.datasets import Objects365V1Dataset, VOCDataset
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmclipdis.apis.run import use_full_precision
from mmclipdis.datasets.detection.classes import COCO_CLASSES, OV_CLASSES
from tests.datasets.detection.files import coco, lvis, save
from tests.tiny import tiny_arch, tiny_eva_arch

CONFIGS = sorted((ROOT / "configs" / "fvit").glob("*.py"))
NAMES = [path.stem for path in CONFIGS]
TRAINED = [name for name in NAMES if "lvis2" not in name]
TRANSFER = [name for name in NAMES if "lvis2" in name]
#: Size, patch, epochs, steps of the rate; temperature of CLIPSelf, of DeCLIP; alpha, beta; weight
#: of the background; threshold of the score, of NMS, detections; masks; epochs between tests.
TABLE: dict[str, tuple[Any, ...]] = {
    "vitb16_ov-coco": (640, 16, 3, None, 75, 45, 0.1, 0.8, 0.6, 0.01, 0.4, 100, False, 1),
    "vitl14-336_ov-coco": (896, 14, 3, None, 75, 45, 0.1, 0.8, 0.6, 0.01, 0.4, 100, False, 1),
    "vitb16_ov-lvis": (1024, 16, 48, [32, 44], 50, 90, 0.1, 0.6, 0.9, 1e-4, 0.5, 300, True, 12),
    "vitl14-336_ov-lvis": (896, 14, 48, [32, 44], 50, 90, 0.1, 0.4, 0.9, 1e-4, 0.5, 300, True, 12),
}
PARAMETERS = {
    "vitb16_ov-coco": 20_989_972,
    "vitl14-336_ov-coco": 30_954_772,
    "vitb16_ov-lvis": 23_614_485,
    "vitl14-336_ov-lvis": 33_579_285,
}
CLIP_MEAN, IMAGENET_MEAN = [122.771, 116.746, 104.094], [123.675, 116.28, 103.53]


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-fvit-configs", scope_name="mmdet")


def load(name: str) -> Config:
    return Config.fromfile(ROOT / "configs" / "fvit" / f"{name}.py")


def column(name: str) -> str:
    """The column of the table that the config is of."""
    return name[name.index("vit", 4) :]


def sizes(config: Config) -> set[int]:
    """Every image size that the config names."""
    steps = [*config.get("train_pipeline", ()), *config.test_pipeline]
    named = [step.get(key) for step in steps for key in ("scale", "crop_size")]
    sides = {side for pair in named if pair is not None for side in pair}
    return sides | {config.model.data_preprocessor.pad_size_divisor, *config.image_size}


def test_every_column_has_its_configs() -> None:
    for method in ("clipself", "declip", "openai"):
        assert {f"fvit_{method}_{name}" for name in TABLE} <= set(NAMES)
    for method in ("clipself", "declip"):
        transfer = {f"fvit_{method}_vitl14-336_lvis2{to}" for to in ("coco", "objects365", "voc07")}
        assert transfer <= set(TRANSFER)


@pytest.mark.parametrize("name", TRAINED)
def test_values_are_the_published_ones(name: str) -> None:
    config = load(name)
    (size, patch, epochs, steps, clipself, declip, alpha, beta, background, score, nms, most,
     masks, interval) = TABLE[column(name)]  # fmt: skip
    assert sizes(config) == {size}
    assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (epochs, interval)
    warm_up, *others = config.param_scheduler
    assert (warm_up.start_factor, warm_up.end, warm_up.by_epoch) == (0.001, 250, False)
    assert [(s.milestones, s.gamma) for s in others] == ([] if steps is None else [(steps, 0.1)])
    test = config.model.test_cfg.rcnn
    temperature = declip if "declip" in name else clipself
    assert (test.vlm_temperature, test.alpha, test.beta) == (temperature, alpha, beta)
    assert "detect_temperature" not in test
    assert (test.score_thr, test.nms.iou_threshold, test.max_per_img) == (score, nms, most)
    head = config.model.roi_head
    assert (head.bbox_head.loss_cls.bg_weight, "mask_head" in head) == (background, masks)
    assert config.model.train_cfg.rcnn.assigner.match_low_quality == masks
    strides = [patch / 4, patch / 2, patch, 2 * patch, 4 * patch]
    assert config.model.rpn_head.anchor_generator.strides == strides
    extractors = [head.bbox_roi_extractor, *([head.mask_roi_extractor] if masks else [])]
    assert all(extractor.featmap_strides == strides[:4] for extractor in extractors)
    assert config.model.data_preprocessor.mean == (CLIP_MEAN if "openai" in name else IMAGENET_MEAN)


@pytest.mark.parametrize("name", TRAINED)
def test_the_schedule_is_the_published_one(name: str) -> None:
    config = load(name)
    wrapper = config.optim_wrapper
    assert (wrapper.type, wrapper.loss_scale) == ("AmpOptimWrapper", 512)
    assert wrapper.optimizer == dict(
        type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1
    )  # and of every parameter: no paramwise_cfg
    assert "paramwise_cfg" not in wrapper
    assert wrapper.clip_grad == dict(max_norm=1.0, norm_type=2)
    assert config.auto_scale_lr == dict(enable=True, base_batch_size=64)
    assert config.train_dataloader.batch_size == 8
    checkpoint = config.default_hooks.checkpoint
    best = ("coco/novel_ap50", "greater") if "coco" in name else (None, None)
    assert (checkpoint.save_best, checkpoint.rule) == best
    assert checkpoint.by_epoch and checkpoint.interval == 1


@pytest.mark.parametrize("name", TRANSFER)
def test_transfer_is_a_matter_of_test_options(name: str) -> None:
    config = load(name)
    test = config.model.test_cfg.rcnn
    weight = 0.2 if name.endswith("coco") else 0.3
    assert (test.alpha, test.beta) == (weight, weight)
    assert (test.vlm_temperature, test.detect_temperature) == (120, 50)
    assert (test.score_thr, test.nms.iou_threshold, test.max_per_img) == (1e-4, 0.5, 300)
    assert sizes(config) == {896}
    assert config.model.roi_head.mask_head is None
    method = name.split("_")[1]
    trained = load(f"fvit_{method}_vitl14-336_ov-lvis").model
    assert trained.backbone == config.model.backbone  # of the same weights
    assert trained.roi_head.bbox_head.text_encoder == config.model.roi_head.bbox_head.text_encoder


def test_a_checkpoint_of_lvis_fits_transfer_but_for_its_masks() -> None:
    with torch.device("meta"):
        trained, tested = (
            MODELS.build(load(f"fvit_declip_vitl14-336_{data}").model).state_dict()
            for data in ("ov-lvis", "lvis2coco")
        )
    assert set(tested) < set(trained)
    assert all(value.shape == trained[key].shape for key, value in tested.items())
    assert all(key.startswith("roi_head.mask_head.") for key in set(trained) - set(tested))


@pytest.mark.parametrize("name", NAMES)
def test_image_and_text_are_of_one_clip_with_the_readout_of_its_weights(name: str) -> None:
    model = load(name).model
    encoder, text = model.backbone.encoder, model.roi_head.bbox_head.text_encoder
    assert encoder.arch == text.arch
    assert encoder.arch.startswith("ViT" if "openai" in name else "EVA02")
    if "declip" not in name:
        assert encoder.type == "MaskCLIPViT" and "readout" not in encoder
        return
    scale = "sqrt" if "openai" in name else "none"
    assert encoder.type == "DeCLIPViT"
    assert encoder.readout == dict(attention=("qq", "kk"), scale=scale)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_parameters_are_as_many_as_published(name: str) -> None:
    with torch.device("meta"):
        model = MODELS.build(load(name).model)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == PARAMETERS[column(name)]


def narrow(part: Any, width: int = 16) -> None:
    """256 channels of neck and heads become ``width``, anywhere below ``part``."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        if isinstance(value, (dict, list)):
            narrow(value, width)
        elif value == 256 and str(key).endswith("_channels"):  # not num=256 of a sampler
            part[key] = width


def shrink_model(model: ConfigDict) -> None:
    """A CLIP of the same kind, depth and patch, but narrow; neck and heads too."""
    encoder, text = model.backbone.encoder, model.roi_head.bbox_head.text_encoder
    patch = 14 if "L-14" in encoder.arch else 16
    depth = model.backbone.out_indices[-1] + 1
    if encoder.arch.startswith("EVA02"):
        arch = tiny_eva_arch(img_size=2 * patch, patch_size=patch, embed_dim=16, depth=depth)
        arch["vision_cfg"]["image_size"] = 2 * patch
    else:
        arch = tiny_arch(
            image_size=2 * patch, patch_size=patch, width=16, head_width=8, layers=depth
        )
    arch["text_cfg"] = dict(context_length=20, vocab_size=49408, width=16, heads=2, layers=1)
    for part in (encoder, text):
        part.pop("init_cfg")
        part.pop("arch")
        part.arch = arch
    text.update(cache_dir=False, progress=False)
    model.neck.in_channels = [16] * 4
    model.roi_head.bbox_head.update(
        fc_out_channels=arch["embed_dim"], templates=("a photo of a {}.",)
    )
    narrow(model)


def shrunk(name: str, folder: Path) -> Config:
    """The config on a few photos, with pictures of 4 x 4 patches, and a tiny model."""
    config = load(name)
    side = 4 * (14 if "vitl14" in name else 16)
    config.model.data_preprocessor.pad_size_divisor = side
    loaders = [config[key] for key in ("train_dataloader", "test_dataloader") if key in config]
    for loader in loaders:
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.data_root = str(folder)
        for step in loader.dataset.pipeline:
            step.update({k: (side, side) for k in ("scale", "crop_size") if k in step})
    if "ann_file" in config.test_evaluator:
        config.test_evaluator.ann_file = str(folder / config.test_dataloader.dataset.ann_file)
    if "train_cfg" in config:
        config.val_dataloader, config.val_evaluator = loaders[1], config.test_evaluator
        config.train_cfg.update(max_epochs=1, val_interval=1)
        config.optim_wrapper.optimizer.lr = 10.0  # the warm-up begins at a thousandth
        with pytest.warns(UserWarning, match="fp32"):
            use_full_precision(config)
    shrink_model(config.model)
    config.model.test_cfg.rcnn.score_thr = 0.0  # mmdet has no metrics where nothing is detected
    config.update(work_dir=str(folder / "work"), log_level="ERROR")
    return config


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)


VOC_XML = """<annotation><size><width>100</width><height>80</height><depth>3</depth></size>
<object><name>{}</name><difficult>0</difficult>
<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>31</xmax><ymax>31</ymax></bndbox></object>
</annotation>"""


def write_voc(folder: Path) -> None:
    """Two photos, with an aeroplane and a TV."""
    root = folder / "VOC2007"
    for number, name in enumerate(("aeroplane", "tvmonitor")):
        photo(root / f"JPEGImages/{number}.jpg")
        path = root / f"Annotations/{number}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(VOC_XML.format(name))
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/test.txt").write_text("0\n1\n")


def write_data(config: Config, folder: Path) -> None:
    """Photos and annotations at the paths that the config names."""
    for key in ("train_dataloader", "test_dataloader"):
        if key not in config:
            continue
        dataset = config[key].dataset
        if dataset.type == "VOCDataset":
            write_voc(folder)
            continue
        if dataset.type == "OVLVISDataset":
            content = lvis()
            files = [f"train2017/{i:012d}.jpg" for i in (1, 2, 3)]
        elif dataset.type == "Objects365V1Dataset":
            names = Objects365V1Dataset.METAINFO["classes"]
            content = coco([("person", 1), ("dog", 2)], COCO_CLASSES)
            content["categories"] = [dict(id=i, name=n) for i, n in enumerate(names, start=1)]
            files = [f"{dataset.data_prefix.img}{i}.jpg" for i in (1, 2)]
        else:
            names = OV_CLASSES if dataset.type == "OVCocoDataset" else COCO_CLASSES
            content = coco([("car", 1), ("bench", 2), ("dog", 3)], names, crowd=())
            files = [f"{dataset.data_prefix.img}{i}.jpg" for i in (1, 2, 3)]
        save(folder / dataset.ann_file, content)
        for file in files:
            photo(folder / file)


@pytest.mark.parametrize("name", TRAINED)
def test_config_trains_and_tests(name: str, tmp_path: Path) -> None:
    config = shrunk(name, tmp_path)
    write_data(config, tmp_path)
    runner = Runner.from_cfg(config)
    before = {key: p.detach().clone() for key, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 1
    for key, parameter in runner.model.named_parameters():
        if key.startswith("backbone.encoder"):
            assert torch.equal(before[key], parameter), key
    for key in ("backbone.interpolate1.0.weight", "roi_head.bbox_head.detect_temperature"):
        assert not torch.equal(before[key], runner.model.state_dict()[key]), key
    scalars = runner.message_hub.log_scalars
    losses = {key.removeprefix("train/") for key in scalars if "/loss_" in key}
    masks = {"loss_mask"} if name.endswith("lvis") else set()
    assert losses == {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"} | masks
    wanted = "lvis/segm_APr" if masks else "coco/novel_ap50"
    assert f"val/{wanted}" in scalars


@pytest.mark.parametrize("name", TRANSFER)
def test_transfer_config_tests(name: str, tmp_path: Path) -> None:
    config = shrunk(name, tmp_path)
    write_data(config, tmp_path)
    runner = Runner.from_cfg(config)
    take_as_meant(runner.model)
    metrics = runner.test()
    assert all(np.isfinite(value) for value in metrics.values())
    wanted = {"coco": "coco/bbox_mAP", "objects365": "coco/bbox_mAP", "voc07": "pascal_voc/mAP"}
    assert wanted[name.split("lvis2")[1]] in metrics
    counts = {"coco": 80, "objects365": 365, "voc07": len(VOCDataset.METAINFO["classes"])}
    assert runner.model.vocabulary.num_classes == counts[name.split("lvis2")[1]]
