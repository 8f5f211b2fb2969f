"""The ``--cfg-options`` that DeCLIP's configs name in their comments can be given as they stand."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS

from mmclipdis.clip.towers.readout import Readout, get_readout
from tests.paths import ROOT

CONFIGS = ROOT / "configs"
DECLIP = CONFIGS / "declip"
#: Config -> where the options in its comments stand, if not there.
ELSEWHERE = {
    "regions_vitl14-336_eva_coco-panoptic": DECLIP / "regions_vitb16_eva_coco-panoptic.py",
    "declip_vitb16_voc21": CONFIGS / "_base_" / "models" / "declip_vitb16.py",
}
UNSCALED_QQ = Readout(("qq",), scale="none")


def documented(path: Path) -> list[str]:
    comments = [line.lstrip("# ") for line in path.read_text().splitlines() if line[:1] == "#"]
    found = re.findall(r"(?<!\S)[\w.]*\.\w+=(?:\"[^\"]*\"|\S+)", "\n".join(comments))
    return [shlex.split(option)[0] for option in found]


def cases() -> list[tuple[Path, str]]:
    paths = sorted(DECLIP.rglob("*.py"))
    return [(p, option) for p in paths for option in documented(ELSEWHERE.get(p.stem, p))]


def given(path: Path, *options: str) -> Config:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    config = Config.fromfile(path)
    config.merge_from_dict(parser.parse_args(["--cfg-options", *options]).cfg_options)
    return config


def test_the_options_are_found():
    found = {(path.stem, option) for path, option in cases()}
    assert ("regions_vitb16_eva_coco-panoptic", "model.encoder.readout.attention=['qq']") in found
    assert {path.stem for path, _ in cases()} >= {"catseg_vitb16_coco-stuff", *ELSEWHERE}


@pytest.mark.parametrize(("path", "option"), cases(), ids=lambda value: str(value)[-60:])
def test_a_documented_option_changes_what_it_names(path, option):
    key, _, text = option.partition("=")
    *parents, last = key.split(".")
    before, after = Config.fromfile(path), given(path, option).to_dict()
    owner = before.to_dict()
    for parent in parents:
        assert isinstance(owner, dict), f"{key}: no {parent} to change"
        owner = owner[parent]
    assert last in owner or owner["type"] == "DeCLIPViT"  # whose readout is a default
    value = after
    for part in key.split("."):
        value = value[part]
    assert value == (["qq"] if text == "['qq']" else text)
    assert value != owner.get(last)


@pytest.mark.parametrize("name", ["vitb16_eva", "vitl14-336_eva", "vitb16_openai"])
def test_readouts_of_the_region_configs_are_those_described(name):
    path = DECLIP / f"regions_{name}_coco-panoptic.py"
    options = documented(ELSEWHERE.get(path.stem, path))
    built = {}
    for option in options:
        config = given(path, option)
        with torch.device("meta"):
            built[option] = MODELS.build(config.model.encoder).readout
        text = config.model.text_encoder.init_cfg.checkpoint
        assert text == Config.fromfile(path).model.text_encoder.init_cfg.checkpoint
    if name.endswith("_eva"):
        assert built["model.encoder.readout.attention=['qq']"] == UNSCALED_QQ
        assert built["model.encoder.readout.scale=sqrt"] == get_readout("csa")
    else:
        assert built["model.encoder.readout=qq"] == get_readout("qq")
