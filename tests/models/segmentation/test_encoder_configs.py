"""Configs of encoders beyond CLIP: their protocol, statistics and sizes. The file takes about 15 s.

Towers are read, not built: their archs are those of the published weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from open_clip import list_pretrained_tags_by_model

import mmclipdis.models  # noqa: F401  (registers the modules)
from mmclipdis.apis.plain_values import check_plain_values
from mmclipdis.clip.text.templates import get_templates
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.clip.weights.statistics import statistics_of
from mmclipdis.utils.statistics import CLIP, HALF, IMAGENET, NONE
from tests.paths import ROOT

CONFIGS = ROOT / "configs"
BENCHMARKS = (
    "voc21", "context60", "coco_object", "voc20", "context59", "coco_stuff164k", "cityscapes",
    "ade20k",
)  # fmt: skip
WITH_BACKGROUND = ("voc21", "context60", "coco_object")
# Folder and name of a family -> arch, readout, statistics, short side, window, stride, scale,
# prompts. Those of TIPS and dino.txt are of their notebooks, the others as of CLIP.
FAMILIES: dict[str, tuple[Any, ...]] = {
    "siglip2/siglip2_vitb16": (
        *("ViT-B-16-SigLIP2-512", "vanilla", HALF, 448, 448, 224, "file", "imagenet80"),
    ),
    "pe/pe_vitb16": ("PE-Core-B-16", "vanilla", HALF, 448, 448, 224, 50.0, "imagenet80"),
    "metaclip2/metaclip2_vith14": (
        *("ViT-H-14-worldwide-quickgelu", "vanilla", CLIP, 448, 448, 224, 50.0, "imagenet80"),
    ),
    "mobileclip/mobileclip_vitb16": (
        *("MobileCLIP-B", "vanilla", NONE, 448, 448, 224, 50.0, "imagenet80"),
    ),
    "tips/tips_vitb14": ("TIPSv2-B-14", "maskclip", NONE, 448, 448, 336, 1.0, "tcl9"),
    "dinotxt/dinotxt_vitl16": (
        *("dinotxt-v3-L-16", "vanilla", IMAGENET, 512, 384, 192, 1.0, "imagenet80"),
    ),
}
#: The same by another readout: name -> its family, the readout.
OTHERS = {
    "siglip2/siglip2-maskclip_vitb16": ("siglip2/siglip2_vitb16", "maskclip"),
    "pe/pe-maskclip_vitb16": ("pe/pe_vitb16", "maskclip"),
    "metaclip2/metaclip2-clearclip_vith14": ("metaclip2/metaclip2_vith14", "clearclip"),
    "mobileclip/mobileclip-clearclip_vitb16": ("mobileclip/mobileclip_vitb16", "clearclip"),
    "tips/tips-vanilla_vitb14": ("tips/tips_vitb14", "vanilla"),
}
CATSEG = ("siglip2/catseg_siglip2_vitb16", "pe/catseg_pe_vitb16")
TRAINED = tuple(f"{name}_coco-stuff" for name in CATSEG)
CATSEG_BENCHMARKS = ("a847", "pc459", "a150", "pc59", "pas20", "pas20b")


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f"{name}.py")


def levels(path: Path) -> int:
    bases = Config._get_base_files(str(path))
    return 1 + max((levels(path.parent / base) for base in bases), default=-1)


def pixels(statistics: Any) -> tuple[list[float], list[float]]:
    """Mean and std as a data_preprocessor has them, from 0 to 255."""
    return [255 * m for m in statistics.mean], [255 * s for s in statistics.std]


def folders() -> set[str]:
    return {name.split("/")[0] for name in FAMILIES}


def test_each_family_has_the_eight_benchmarks() -> None:
    found = {
        f"{folder}/{path.stem}" for folder in folders() for path in (CONFIGS / folder).glob("*.py")
    }
    sets = {f"{name}_{benchmark}" for name in (*FAMILIES, *OTHERS) for benchmark in BENCHMARKS}
    assert found >= sets
    assert {name.split("/")[1].split("_")[0] for name in found - sets} == {"catseg", "distill"}


def test_no_setting_has_a_wrong_type() -> None:
    """Of every config, where tests/apis/test_plain_values.py reads one in twelve."""
    paths = [path for folder in folders() for path in (CONFIGS / folder).glob("*.py")]
    assert len(paths) == 8 * (len(FAMILIES) + len(OTHERS)) + 7 * len(CATSEG) + 2
    for path in paths:
        check_plain_values(Config.fromfile(path))


def test_configs_are_short_and_not_deep() -> None:
    for folder in folders():
        for path in (CONFIGS / folder).glob("*.py"):
            assert levels(path) in (1, 2), path.name
            assert len(path.read_text().splitlines()) < 60, path.name


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_config_has_the_protocol_of_its_family(name: str, benchmark: str) -> None:
    arch, readout, statistics, short, window, stride, scale, templates = FAMILIES[name]
    config = load(f"{name}_{benchmark}")
    model = config.model
    head = model.decode_head
    assert (model.backbone.type, model.backbone.arch) == ("CLIPViT", arch)
    assert (head.text_encoder.arch, model.backbone.readout) == (arch, readout)
    assert model.backbone.init_cfg == head.text_encoder.init_cfg
    assert (head.logit_scale, head.templates) == (scale, templates)
    assert model.test_cfg.crop_size == (window, window)
    assert model.test_cfg.stride == (stride, stride)
    mean, std = pixels(statistics)
    assert list(model.data_preprocessor.mean) == pytest.approx(mean, abs=2e-3)
    assert list(model.data_preprocessor.std) == pytest.approx(std, abs=2e-3)
    for loader in (config.test_dataloader, config.val_dataloader):
        (step,) = [step for step in loader.dataset.pipeline if step.type == "Resize"]
        assert step.scale == (2048, short)
        assert step.get("interpolation", "bilinear") == ("bicubic" if short == 512 else "bilinear")
    thresholds = [head.prob_thd] if benchmark in WITH_BACKGROUND else [head.get("prob_thd", 0)]
    assert thresholds == [0]  # nobody published one


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("name", OTHERS)
def test_another_readout_changes_nothing_else(name: str, benchmark: str) -> None:
    family, readout = OTHERS[name]
    config, plain = load(f"{name}_{benchmark}").to_dict(), load(f"{family}_{benchmark}").to_dict()
    assert config["model"]["backbone"].pop("readout") == readout
    plain["model"]["backbone"].pop("readout")
    assert config == plain


@pytest.mark.parametrize("name", [*FAMILIES, *TRAINED])
def test_windows_hold_whole_patches_and_weights_their_statistics(name: str) -> None:
    model = load(name if name in TRAINED else f"{name}_voc20").model
    encoder = model.image_encoder if name in TRAINED else model.backbone
    text = model.text_encoder if name in TRAINED else model.decode_head.text_encoder
    with torch.device("meta"):
        tower = build_image_tower(encoder.arch)
    sides = {*model.test_cfg.crop_size, *model.test_cfg.stride, *model.get("clip_size", ())}
    assert all(side % tower.patch_size[0] == 0 for side in sides)
    readout = READOUTS[encoder.readout]
    assert readout.attention
    source = encoder.init_cfg.checkpoint
    tag = source if isinstance(source, str) else None
    mean, std = pixels(statistics_of(encoder.arch, tag))
    assert list(model.data_preprocessor.mean) == pytest.approx(mean, abs=2e-3)
    assert list(model.data_preprocessor.std) == pytest.approx(std, abs=2e-3)
    if tag is not None:
        assert tag in list_pretrained_tags_by_model(encoder.arch)
    assert (text.arch, text.init_cfg) == (encoder.arch, encoder.init_cfg)


@pytest.mark.parametrize("name", [*FAMILIES, *TRAINED])
def test_a_tokenizer_is_named_where_the_arch_needs_one(name: str) -> None:
    model = load(name if name in TRAINED else f"{name}_voc20").model
    text = model.text_encoder if name in TRAINED else model.decode_head.text_encoder
    own = any(part in text.arch for part in ("SigLIP", "worldwide", "TIPS"))
    assert ("tokenizer" in text) == own


@pytest.mark.parametrize("name", TRAINED)
def test_catseg_keeps_the_settings_of_clips(name: str) -> None:
    """SigLIP 2's authors trained CAT-Seg with its hyper-parameters unchanged."""
    ours, theirs = (load(n).to_dict() for n in (name, "catseg/catseg_vitb16_coco-stuff"))
    model, base = ours.pop("model"), theirs.pop("model")
    for config in (ours, theirs):
        config.pop("clip")
    assert ours == theirs
    for part in ("image_encoder", "text_encoder"):
        assert model[part]["trainable"] == base[part]["trainable"] == ("q", "v")
    own = ("image_encoder", "text_encoder", "data_preprocessor")
    assert {k: v for k, v in model.items() if k not in own} == {
        k: v for k, v in base.items() if k not in own
    }
    sizes = [one["data_preprocessor"]["size"] for one in (model, base)]
    assert sizes == [(384, 384)] * 2


@pytest.mark.parametrize("benchmark", CATSEG_BENCHMARKS)
@pytest.mark.parametrize("name", CATSEG)
def test_a_trained_catseg_has_its_six_benchmarks(name: str, benchmark: str) -> None:
    config, trained = (load(f"{name}_{end}").to_dict() for end in (benchmark, "coco-stuff"))
    clip = load(f"catseg/catseg_vitb16_{benchmark}").to_dict()
    assert config["model"] == trained["model"]
    for key in ("test_dataloader", "test_evaluator"):
        assert config[key] == clip[key]


def test_tips_has_the_nine_prompts_of_its_notebook() -> None:
    prompts = get_templates(load("tips/tips_vitb14_ade20k").model.decode_head.templates)
    assert len(prompts.formats) == 9
    assert {"itap of a {}.", "a origami {}.", "a photo of {}s."} < set(prompts.formats)
