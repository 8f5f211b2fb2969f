"""Every training-free config builds, predicts, and has the published protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS, TRANSFORMS

from mmclipdis.clip.towers.readout import Readout
from mmclipdis.models.segmentation import OpenVocabSegmentor
from tests.paths import ROOT
from tests.tiny import tiny_arch, tiny_eva_arch

CONFIGS = ROOT / "configs"
METHODS = {
    "clip": "CLIPViT",
    "maskclip": "MaskCLIPViT",
    "sclip": "SCLIPViT",
    "clearclip": "ClearCLIPViT",
    "declip": "DeCLIPViT",
}
ARCHS = {"vitb16": "ViT-B-16-quickgelu", "vitl14": "ViT-L-14-quickgelu"}
TWO_ARCHS = [method for method in METHODS if method != "declip"]

# Short side, crop, stride, logit scale, threshold; queries of the class files of ClearCLIP, SCLIP
# and ProxyCLIP.
CLEARCLIP = {
    "voc21": (448, 448, 224, 50, 0.5, 21),
    "context60": (448, 448, 224, 50, 0.15, 60),
    "coco_object": (448, 448, 224, 50, 0.4, 81),
    "voc20": (448, 448, 224, 50, 0, 20),
    "context59": (448, 448, 224, 50, 0, 59),
    "coco_stuff164k": (448, 448, 224, 50, 0, 171),
    "cityscapes": (448, 224, 224, 50, 0, 19),
    "ade20k": (448, 448, 224, 50, 0, 150),
}
SCLIP = {
    "voc21": (336, 224, 112, 65, 0.1, 56),
    "context60": (336, 224, 112, 50, 0.1, 60),
    "coco_object": (336, 224, 112, 50, 0.1, 113),
    "voc20": (336, 224, 112, 40, 0, 30),
    "context59": (336, 224, 112, 40, 0, 59),
    "coco_stuff164k": (448, 224, 112, 40, 0, 171),
    "cityscapes": (560, 224, 112, 40, 0, 19),
    "ade20k": (336, 224, 112, 40, 0, 150),
}
DECLIP = {
    "voc21": (448, 336, 112, 80, 0.4, 46),
    "context60": (448, 336, 112, 40, 0.15, 60),
    "coco_object": (448, 336, 112, 40, 0.2, 97),
    "voc20": (448, 336, 112, 40, 0, 20),
    "context59": (448, 336, 112, 40, 0, 59),
    "coco_stuff164k": (448, 336, 112, 40, 0, 171),
    "cityscapes": (560, 336, 112, 40, 0, 19),
    "ade20k": (448, 336, 112, 40, 0, 150),
}
DECLIP_MIOU = {
    "voc21": 59.7, "context60": 35.3, "coco_object": 36.4, "voc20": 85.0, "cityscapes": 32.8,
    "context59": 39.2, "ade20k": 21.9, "coco_stuff164k": 25.3,
}  # fmt: skip
NO_THRESHOLD = {name: (*row[:4], 0, row[5]) for name, row in CLEARCLIP.items()}
PROTOCOLS = {
    "clearclip": CLEARCLIP,
    "sclip": SCLIP,
    "declip": DECLIP,
    "maskclip": NO_THRESHOLD,
    "clip": {**NO_THRESHOLD, "voc21": (*CLEARCLIP["voc21"][:4], 0.2, 21)},
}
ALL = [(m, a, b) for m in TWO_ARCHS for a in ARCHS for b in CLEARCLIP]


def load(method: str, arch: str, benchmark: str) -> Config:
    return Config.fromfile(CONFIGS / method / f"{method}_{arch}_{benchmark}.py")


def shrink(config: Config, arch: dict[str, Any] | None = None) -> dict[str, Any]:
    """The config's model with a tiny CLIP, random weights and one template."""
    model = config.model.to_dict()
    arch = arch or tiny_arch()
    arch["text_cfg"] = {**arch["text_cfg"], "vocab_size": 49408, "context_length": 77}
    for part in (model["backbone"], model["decode_head"]["text_encoder"]):
        part.pop("init_cfg")
        part.update(arch=arch)
    model["decode_head"]["text_encoder"].update(cache_dir=False, progress=False)
    model["decode_head"]["templates"] = "single"
    return model


def test_there_is_one_config_for_every_combination() -> None:
    found = {p.stem for m in TWO_ARCHS for p in (CONFIGS / m).glob("*.py")}
    assert found == {f"{m}_{a}_{b}" for m, a, b in ALL}
    declip = {p.stem for p in (CONFIGS / "declip").glob("*.py")}  # holds training configs, too
    assert declip >= {f"declip_vitb16_{b}" for b in CLEARCLIP}


@pytest.mark.parametrize("benchmark", CLEARCLIP)
@pytest.mark.parametrize("method", METHODS)
def test_config_builds_with_the_published_protocol(method: str, benchmark: str) -> None:
    config = load(method, "vitb16", benchmark)
    short, crop, stride, scale, threshold, queries = PROTOCOLS[method][benchmark]
    assert config.model.backbone.type == METHODS[method]
    assert config.model.test_cfg.crop_size == (crop, crop)
    assert config.model.test_cfg.stride == (stride, stride)
    long = 4096 if method == "declip" and benchmark != "coco_object" else 2048
    for loader in (config.test_dataloader, config.val_dataloader):
        assert loader.dataset.pipeline[1].scale == (long, short)
    model = MODELS.build(shrink(config))
    assert isinstance(model, OpenVocabSegmentor)
    assert (model.decode_head.logit_scale, model.decode_head.prob_thd) == (scale, threshold)
    area = 0.1 if (method, benchmark) == ("sclip", "voc21") else None
    assert model.decode_head.area_thd == area
    assert len(model.vocabulary.queries) == queries
    dataset = DATASETS.get(config.test_dataloader.dataset.type)
    assert model.num_classes == len(dataset.METAINFO["classes"])


@pytest.mark.parametrize(
    ("size", "resized"),
    [((375, 500), (448, 597)), ((1024, 2048), (448, 896)), ((300, 2000), (307, 2048))],
)
@pytest.mark.parametrize("benchmark", CLEARCLIP)
def test_photos_are_resized_to_the_golden_sizes(
    benchmark: str, size: tuple[int, int], resized: tuple[int, int]
) -> None:
    config = load("clearclip", "vitb16", benchmark)
    (step,) = [s for s in config.test_dataloader.dataset.pipeline if s.type == "Resize"]
    photo = {"img": np.zeros((*size, 3), np.uint8), "img_shape": size}
    assert TRANSFORMS.build(step)(photo)["img"].shape == (*resized, 3)


@pytest.mark.parametrize("benchmark", CLEARCLIP)
def test_declip_reads_its_eva_tower_as_released(benchmark: str) -> None:
    """DeCLIP, section 6.1 of its facts: scaled csa, unit map, 16-pixel padding, 80 templates."""
    config = load("declip", "vitb16", benchmark)
    head, backbone = config.model.decode_head, config.model.backbone
    assert (backbone.arch, head.text_encoder.arch) == ("EVA02-B-16", "EVA02-B-16")
    assert backbone.init_cfg == head.text_encoder.init_cfg
    assert (config.model.test_cfg.window_padding, head.templates) == ("symmetric", "imagenet80")
    assert f"Published: {DECLIP_MIOU[benchmark]} mIoU" in Path(config.filename).read_text()
    built = MODELS.build(shrink(config)).backbone
    assert built.readout == Readout(("qq", "kk"), residual="none", ffn=False, scale="sqrt")
    assert built.normalize and built.tower.positions == "size"


@pytest.mark.parametrize("benchmark", CLEARCLIP)
@pytest.mark.parametrize("method", TWO_ARCHS)
def test_both_backbones_share_the_protocol(method: str, benchmark: str) -> None:
    configs = {arch: load(method, arch, benchmark).to_dict() for arch in ARCHS}
    if method == "maskclip":  # L/14 was measured by ClearCLIP's authors, with their rule
        rules = [
            config["model"]["backbone"].pop("positions", "size") for config in configs.values()
        ]
        assert rules == ["size", "legacy"]
    for arch, name in ARCHS.items():
        model = configs[arch]["model"]
        parts = [model["backbone"], model["decode_head"]["text_encoder"], configs[arch].pop("clip")]
        assert [part.pop("arch") for part in parts] == [name] * 3
    assert configs["vitb16"] == configs["vitl14"]


@pytest.mark.parametrize("method", METHODS)
def test_config_predicts(method: str) -> None:
    torch.manual_seed(0)
    model = MODELS.build(shrink(load(method, "vitb16", "voc21"))).eval()
    photos = [torch.randint(0, 256, (3, 96, 130), dtype=torch.uint8) for _ in range(2)]
    batch = model.data_preprocessor({"inputs": photos, "data_samples": None})
    for result in model.predict(batch["inputs"]):
        labels = result.pred_sem_seg.data
        assert labels.shape == (1, 96, 130)
        assert 0 <= int(labels.min()) <= int(labels.max()) < 21


def test_declip_predicts_with_an_eva_tower() -> None:
    torch.manual_seed(0)
    config = shrink(load("declip", "vitb16", "voc21"), tiny_eva_arch())
    config["test_cfg"].update(crop_size=(24, 24), stride=(8, 8))
    model = MODELS.build(config).eval()
    photo = torch.randint(0, 256, (3, 30, 41), dtype=torch.uint8)
    batch = model.data_preprocessor({"inputs": [photo], "data_samples": None})
    (result,) = model.predict(batch["inputs"])
    assert result.pred_sem_seg.data.shape == (1, 30, 41)
    assert type(model.backbone.tower).__name__ == "TimmViT"
