"""The configs of OV-DQUO: published values, and an iteration of training and testing."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmclipdis.engine.random_weights import take_as_meant
from tests.paths import ROOT

pytest.importorskip("mmdet")

from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from tests.models.detection.fvit.test_configs import write_data
from tests.tiny import tiny_arch, tiny_eva_arch, tiny_resnet_arch

CONFIGS = sorted((ROOT / "configs" / "ovdquo").glob("*.py"))
NAMES = [path.stem for path in CONFIGS]
TRAINED = [name for name in NAMES if "lvis2" not in name]
TRANSFER = [name for name in NAMES if "lvis2" in name]
#: Image, blocks, widths of the levels, weights of an epoch's batch a GPU.
TOWERS: dict[str, tuple[Any, ...]] = {
    "rn50": ((1333, 800), None, [512, 1024], 4),
    "rn50x4": ((1333, 800), None, [640, 1280], 3),
    "vitb16": ((1024, 1024), (5, 7, 11), [768] * 3, 4),
    "vitl14-336": ((896, 896), (10, 14, 23), [1024] * 3, 4),
}
#: Classes of an iteration, factor of novel ones, detections, epochs, the pseudo boxes.
DATA: dict[str, tuple[Any, ...]] = {
    "ov-coco": (48, 3.0, 100, 30, "annotations/OW_COCO_R2.json"),
    "ov-lvis": (100, 8.0, 300, 35, "annotations/OW_LVIS_R3.json"),
}
#: Those that a whole run is made of: each kind of backbone, data, sampler and metric.
RUN = ("ovdquo_declip_vitb16_ov-coco", "ovdquo_openai_rn50x4_ov-lvis")
CLIP_MEAN, IMAGENET_MEAN = [122.771, 116.746, 104.094], [123.675, 116.28, 103.53]


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-ovdquo-configs", scope_name="mmdet")


@pytest.fixture
def _plain_dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine lays out the config seven times a run, which takes longer than all else."""
    monkeypatch.setattr("mmengine.config.config.FormatCode", lambda text, **_: (text, True))


@functools.cache
def read(name: str) -> Config:
    return Config.fromfile(ROOT / "configs" / "ovdquo" / f"{name}.py")


def load(name: str) -> Config:
    return copy.deepcopy(read(name))


def parts(name: str) -> tuple[str, str, str]:
    """Whose weights, tower, data."""
    _, weights, tower, data = name.split("_")
    return weights, tower, data


def steps(pipeline: Any) -> Iterator[Any]:
    """Every step of a pipeline, of those inside of others, too."""
    for step in pipeline:
        if isinstance(step, list):
            yield from steps(step)
        else:
            yield step
            yield from steps(step.get("transforms", ()))


def test_every_clip_has_its_configs() -> None:
    pairs = [("openai", tower) for tower in TOWERS]
    pairs += [(weights, tower) for weights in ("clipself", "declip") for tower in TOWERS
              if "vit" in tower]  # fmt: skip
    wanted = {f"ovdquo_{w}_{t}_{data}" for w, t in pairs for data in DATA}
    assert set(TRAINED) == wanted
    assert set(TRANSFER) == {
        f"ovdquo_{weights}_vitl14-336_lvis2{data}"
        for weights in ("clipself", "declip")
        for data in ("coco", "objects365")
    }


@pytest.mark.parametrize("name", TRAINED)
def test_values_are_the_published_ones(name: str) -> None:
    config, (weights, tower, data) = load(name), parts(name)
    size, blocks, widths, batch = TOWERS[tower]
    classes, factor, most, epochs, pseudo = DATA[data]
    model, test = config.model, config.model.test_cfg
    assert (model.num_queries, model.num_feature_levels, model.query_temperature) == (1000, 3, 100)
    assert (model.max_classes, model.bbox_head.wildcard) == (classes, "object")
    assert test.temperature == (50 if weights == "declip" else 100)
    assert (test.target_class_factor, test.score_thr, test.max_per_img) == (factor, 0.001, most)
    assert test.nms == dict(type="nms", iou_threshold=0.5)
    assert model.dn_cfg == dict(num_queries=100, label_noise=0.25, box_noise_scale=1.0)
    assert (model.neck.in_channels, model.neck.num_outs, model.neck.bias) == (widths, 3, True)
    assert model.backbone.get("out_indices") == blocks
    own = weights == "openai"
    assert model.data_preprocessor.mean == (CLIP_MEAN if own else IMAGENET_MEAN)
    assert model.data_preprocessor.pad_size_divisor == (1 if "rn" in tower else size[0])
    single = "rn" in tower and data == "ov-coco"
    assert model.bbox_head.templates == ("imagenet80" if single else "vild63")
    assert (model.backbone.get("region_prompt") is not None) == single
    loader = config.train_dataloader
    assert (config.train_cfg.max_epochs, config.train_cfg.val_begin) == (epochs, 15)
    assert (loader.batch_size, config.auto_scale_lr.base_batch_size) == (batch, 8 * batch)
    assert loader.dataset.pseudo_boxes == pseudo
    assert "pseudo_boxes" not in config.test_dataloader.dataset
    sampler = dict(type="DefaultSampler", shuffle=True)
    rare = dict(type="RepeatFactorSampler", threshold=0.001)
    assert loader.sampler == (rare if data == "ov-lvis" else sampler)


@pytest.mark.parametrize("name", TRAINED)
def test_pictures_are_those_of_detrs(name: str) -> None:
    config, (_, tower, data) = load(name), parts(name)
    size = TOWERS[tower][0]
    dataset = config.train_dataloader.dataset
    plain, cropped = next(s for s in dataset.pipeline if s.type == "RandomChoice").transforms
    assert cropped[-1:] == plain
    first, crop = cropped[:-1]
    assert [scale[0] for scale in first.scales] == [400, 500, 600]
    assert (crop.crop_type, crop.crop_size, crop.allow_negative_crop) == (
        "absolute_range", (384, 600), True,
    )  # fmt: skip
    if "rn" in tower:
        assert plain[0].scales == [(short, 1333) for short in range(480, 801, 32)]
    else:
        assert plain[0] == dict(type="Resize", scale=size, keep_ratio=True)
    test = config.test_dataloader.dataset.pipeline
    assert next(s for s in test if s.type == "Resize").scale == size
    assert not any(step.get("with_mask") for step in [*steps(dataset.pipeline), *test])
    assert config.val_evaluator == config.test_evaluator
    assert config.val_evaluator.metric == ("bbox" if data == "ov-coco" else ["bbox"])


@pytest.mark.parametrize("name", TRAINED)
def test_the_schedule_is_the_published_one(name: str) -> None:
    config = load(name)
    wrapper = config.optim_wrapper
    assert wrapper.optimizer == dict(
        type="AdamW", lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4
    )
    assert wrapper.paramwise_cfg == dict(custom_keys={"backbone": dict(lr_mult=0.1)})
    assert wrapper.clip_grad == dict(max_norm=0.1, norm_type=2)
    assert (config.param_scheduler, config.randomness.seed) == ([], 42)
    assert [hook.type for hook in config.custom_hooks] == [
        "VocabularyHook", "NonFiniteGuard", "EMAHook",
    ]  # fmt: skip
    assert (config.custom_hooks[-1].momentum, config.custom_hooks[-1].update_buffers) == (
        4e-5,
        True,
    )


@pytest.mark.parametrize("name", TRANSFER)
def test_transfer_takes_the_detector_of_lvis_as_it_is(name: str) -> None:
    config, trained = load(name), load(name.split("_lvis2")[0] + "_ov-lvis")
    assert config.model.test_cfg.target_class_factor == 1  # which classes are novel is all the same
    for each in (config.model, trained.model):
        each.bbox_head.pop("vocabulary", None)
        each.test_cfg.pop("target_class_factor")
    assert config.model == trained.model
    assert config.test_dataloader.dataset.pipeline[1].scale == (896, 896)


@pytest.mark.parametrize("name", NAMES)
def test_image_and_text_are_of_one_clip_with_the_readout_of_its_weights(name: str) -> None:
    model, (weights, tower, _) = load(name).model, parts(name)
    encoder, text = model.backbone.encoder, model.bbox_head.text_encoder
    assert encoder.arch == text.arch
    start = "RN" if "rn" in tower else "ViT" if weights == "openai" else "EVA02"
    assert encoder.arch.startswith(start)
    kind = {"declip": "DeCLIPViT", "clipself": "MaskCLIPViT"}.get(weights, "MaskCLIPViT")
    assert encoder.type == ("CLIPResNet" if start == "RN" else kind)
    readout = dict(attention=("qq", "kk"), scale="none") if weights == "declip" else None
    assert encoder.get("readout") == readout


def tiny_clip(encoder: ConfigDict, depth: int) -> dict[str, Any]:
    """A CLIP of the same kind, depth and patch, but narrow."""
    patch = 14 if "L-14" in encoder.arch else 16
    if encoder.arch.startswith("RN"):
        arch = tiny_resnet_arch()
    elif encoder.arch.startswith("EVA02"):
        arch = tiny_eva_arch(img_size=2 * patch, patch_size=patch, embed_dim=16, depth=depth)
        arch["vision_cfg"]["image_size"] = 2 * patch
    else:
        arch = tiny_arch(
            image_size=2 * patch, patch_size=patch, width=16, head_width=8, layers=depth
        )
    arch["text_cfg"] = dict(context_length=20, vocab_size=49408, width=16, heads=2, layers=1)
    return arch


def shrink_model(model: ConfigDict) -> None:
    """A narrow CLIP, a layer each of encoder and decoder, ten queries.

    Queries keep their 256 channels, without which mmdet's decoder does not work.
    """
    encoder, text = model.backbone.encoder, model.bbox_head.text_encoder
    arch = tiny_clip(encoder, model.backbone.get("out_indices", (0,))[-1] + 1)
    for part in (encoder, text):
        part.pop("init_cfg")
        part.pop("arch")
        part.arch = arch
    text.update(cache_dir=False, progress=False)
    for layers in (model.encoder, model.decoder):
        layers.num_layers = 1
        layers.layer_cfg.ffn_cfg.feedforward_channels = 32
    model.neck.in_channels = [64, 128] if "region_prompt" in model.backbone else [16] * 3
    model.bbox_head.templates = ("a photo of a {}.",)
    model.num_queries = 10
    if "region_prompt" in model.backbone:
        model.backbone.region_prompt = None
    model.test_cfg.score_thr = 0.0  # mmdet has no metrics where nothing is detected


def shrunk(name: str, folder: Path) -> Config:
    """The config on a few photos, with pictures of 4 x 4 patches, and a tiny model."""
    config = load(name)
    side = 56 if "vitl14" in name else 64
    config.model.data_preprocessor.pad_size_divisor = side
    loaders = [config[key] for key in ("train_dataloader", "test_dataloader") if key in config]
    for loader in loaders:
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.data_root = str(folder)
        for step in steps(loader.dataset.pipeline):
            step.update({k: (side, side) for k in ("scale", "crop_size") if k in step})
            step.update({k: [(side, 2 * side)] for k in ("scales",) if k in step})
    config.test_evaluator.ann_file = str(folder / config.test_dataloader.dataset.ann_file)
    if "train_cfg" in config:
        config.val_dataloader, config.val_evaluator = loaders[1], config.test_evaluator
        config.train_cfg.update(max_epochs=1, val_begin=1, val_interval=1)
    shrink_model(config.model)
    config.update(work_dir=str(folder / "work"), log_level="ERROR")
    return config


def write_unknown(config: Config, folder: Path) -> None:
    """A box of something unknown in one of the photos."""
    box = dict(image_id=1, bbox=[5, 40, 30, 30], category_id=-1, pseudo=1, weight=0.5)
    (folder / config.train_dataloader.dataset.pseudo_boxes).write_text(json.dumps([box]))


@pytest.mark.parametrize("name", TRAINED)
def test_config_takes_a_step(name: str, tmp_path: Path) -> None:
    config = shrunk(name, tmp_path)
    side = config.model.data_preprocessor.pad_size_divisor
    torch.manual_seed(0)
    model = MODELS.build(config.model).train()
    model.init_weights()
    model.set_vocabulary(("cat", "dog", "bus"), ("bus",))
    data = demo_mm_inputs(2, [[3, side, side]] * 2, num_items=[2, 2], num_classes=2)
    losses, _ = model.parse_losses(model(**model.data_preprocessor(data, True), mode="loss"))
    losses.backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert not (parameter.requires_grad and key.startswith("backbone.encoder")), key


@pytest.mark.parametrize("tower", ["rn50", "rn50x4", "vitb16", "vitl14-336"])
def test_the_neck_has_the_channels_of_the_backbone(tower: str) -> None:
    for weights in ("openai",) if "rn" in tower else ("openai", "declip"):
        model = load(f"ovdquo_{weights}_{tower}_ov-coco").model
        with torch.device("meta"):
            backbone = MODELS.build(model.backbone)
        assert model.neck.in_channels == list(backbone.level_widths)


@pytest.mark.usefixtures("_plain_dumps")
@pytest.mark.parametrize("name", RUN)
def test_config_trains_and_tests(name: str, tmp_path: Path) -> None:
    config = shrunk(name, tmp_path)
    write_data(config, tmp_path)
    write_unknown(config, tmp_path)
    runner = Runner.from_cfg(config)
    before = {key: p.detach().clone() for key, p in runner.model.named_parameters()}
    runner.train()
    moved = {key for key, p in runner.model.named_parameters() if not torch.equal(before[key], p)}
    assert not any(key.startswith("backbone.encoder") for key in moved)
    trained = {"query_embedding.weight", "bbox_head.cls_branches.0.weight", "text_proj.0.weight"}
    trained |= set() if "_rn" in name else {"backbone.upsample.weight"}
    assert trained <= moved
    rates = {group["lr"] for group in runner.optim_wrapper.param_groups}
    assert rates == ({1e-4} if "_rn" in name else {1e-4, 1e-5})
    scalars = runner.message_hub.log_scalars
    wanted = "lvis/bbox_APr" if name.endswith("lvis") else "coco/novel_ap50"
    assert f"val/{wanted}" in scalars
    assert any("dn_loss_cls" in key for key in scalars), sorted(scalars)


@pytest.mark.usefixtures("_plain_dumps")
@pytest.mark.parametrize("name", [name for name in TRANSFER if "declip" in name])
def test_transfer_config_tests(name: str, tmp_path: Path) -> None:
    config = shrunk(name, tmp_path)
    write_data(config, tmp_path)
    runner = Runner.from_cfg(config)
    runner.model.init_weights()  # mmdet leaves parts of its DINO without any values
    take_as_meant(runner.model)
    metrics = runner.test()
    assert all(np.isfinite(value) for value in metrics.values())
    assert "coco/bbox_mAP" in metrics
    assert runner.model.vocabulary.num_classes == {"coco": 80}.get(name.split("lvis2")[1], 365)
