"""Miniatures of configs: tiny towers, and data that every config reads.

About a minute, most of it to read all configs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmclipdis.apis.reproduction.miniature import LABEL, miniature
from mmclipdis.apis.reproduction.miniature_loaders import shrink_loaders
from mmclipdis.apis.reproduction.miniature_model import parts, scale_of
from mmclipdis.apis.reproduction.miniature_towers import (
    WIDTH,
    Scale,
    patch_of,
    tiny_arch,
    tiny_vision_model,
    write_clip,
    write_vision_model,
)
from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.weights.loading import load_image_tower, load_text_transformer
from mmclipdis.clip.weights.statistics import statistics_of
from mmclipdis.clip.weights.vfm import load_vfm
from mmclipdis.models.vfm import TimmVFM
from tests.paths import ROOT

pytest.importorskip("mmdet")

FOLDERS = sorted({path.parent for path in (ROOT / "configs").glob("*/metafile.yml")})
#: Trainings, one a method; those of the same method read the same data.
TRAININGS = (
    "catseg/catseg_vitb16_coco-stuff.py",
    "infoclip/infoclip_vitb16_coco-stuff.py",
    "declip/distill_vitb16_eva_dinov2_coco.py",
    "declip/distill_vitl14-336_eva_dinov2_coco.py",
    "dclip/dclip_rn101_coco14.py",
    "dclip/dclip_rn101_voc2007.py",
    "fvit/fvit_declip_vitb16_ov-coco.py",
    "fvit/fvit_declip_vitb16_ov-lvis.py",
    "ovdquo/ovdquo_openai_rn50_ov-coco.py",
    "ovdquo/ovdquo_declip_vitb16_ov-lvis.py",
)
ARCHS = (
    *("ViT-B-16-quickgelu", "ViT-L-14-336-quickgelu", "EVA02-B-16", "ViT-B-16-SigLIP2"),
    *("PE-Core-B-16", "TIPSv2-B-14", "dinotxt-v3-L-16", "ViT-H-14-worldwide-quickgelu"),
)


def load(name: str) -> Config:
    return Config.fromfile(ROOT / "configs" / name)


def digests(folder: Path) -> dict[str, str]:
    """What is in every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.mark.parametrize("arch", ARCHS)
def test_a_tiny_tower_is_of_the_family_and_loads_its_file(arch: str, tmp_path: Path) -> None:
    tiny = tiny_arch(arch)
    tower = build_image_tower(tiny)
    with torch.device("meta"):
        real = build_image_tower(arch)
    assert type(tower) is type(real)
    assert len(tower.blocks) == len(real.blocks)
    for name in ("patch_size", "prefix", "positions"):
        assert getattr(tower, name) == getattr(real, name), name
    assert patch_of(arch) == real.patch_size[0]
    assert statistics_of(tiny) == statistics_of(arch)
    file = write_clip(arch, "checkpoints/any.pt", tmp_path)
    assert file.name == f"{arch}_any.pt"
    load_image_tower(tower, tiny, file)
    load_text_transformer(build_text_transformer(tiny), tiny, file)
    assert isinstance(tower, ImageTower)
    assert (
        sum(p.numel() for p in tower.parameters()) < sum(p.numel() for p in real.parameters()) / 20
    )


def test_weights_depend_on_their_arch_and_source_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = write_clip("ViT-B-16-quickgelu", "openai", tmp_path / "a")
    torch.manual_seed(4)
    drawn = torch.rand(1)
    torch.manual_seed(4)
    second = write_clip("ViT-B-16-quickgelu", "openai", tmp_path / "b")
    assert torch.equal(drawn, torch.rand(1))  # the caller's random numbers go on
    one, same = (torch.load(path, weights_only=True) for path in (first, second))
    other = torch.load(write_clip("ViT-B-16-quickgelu", "laion", tmp_path), weights_only=True)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["visual.conv1.weight"], other["visual.conv1.weight"])


@pytest.mark.parametrize("name", ["dino-B-8", "dinov2-B", "dinov3-B", "sam-B"])
def test_a_tiny_vision_model_loads_its_file(name: str, tmp_path: Path) -> None:
    vfm = TimmVFM(name, tiny_vision_model(name))
    load_vfm(vfm.model, write_vision_model(name, f"checkpoints/{name}.pth", tmp_path), name)
    assert vfm.num_features in (WIDTH, 256)  # SAM's neck stays


def test_a_vision_model_without_a_miniature_is_named() -> None:
    with pytest.raises(ValueError, match=r"no miniature of the vision model 'radio-v3-B'"):
        tiny_vision_model("radio-v3-B")


def test_sides_shrink_to_an_eighth_of_their_patches() -> None:
    scale = Scale(16)
    assert scale.sides((2048, 448)) == (256, 64)
    assert scale.sides([(480, 1333), (800, 1333)]) == [(64, 160), (96, 160)]
    assert (scale.side(112), scale.side(16), scale.side(16, least=2)) == (16, 16, 32)
    # student and teacher have as many tokens
    assert Scale(16).side(560) // 16 == Scale(14).side(490) // 14 == 4


def files_read(path: Path) -> tuple[str, ...]:
    """What tells whether another config reads the same data at the same scale."""
    data = re.findall(r"_base_/datasets/\w+\.py", text := path.read_text())
    arch = re.search(r"vit[a-z]\d+(-\d+)?|rn\d+(x\d+)?", path.stem)
    return (*data, arch[0]) if data and arch else (text,)


def distinct() -> Iterator[tuple[str, Config, str]]:
    """Every loader of data that configs of tables test with, and that trainings read, once."""
    seen = set()
    # half of the time goes to reading configs: one of each data set's file and size of tower
    files = {files_read(path): path for folder in FOLDERS for path in sorted(folder.rglob("*.py"))}
    tests = [(path, ("test_dataloader",)) for path in files.values()]
    trained = [
        (ROOT / "configs" / name, ("train_dataloader", "val_dataloader")) for name in TRAININGS
    ]
    for path, names in (*tests, *trained):
        config = Config.fromfile(path, False, use_environment_variables=False)
        for name in names:
            if config.get(name):
                dataset = config[name].dataset.to_dict()
                steps = [step.get("type") for step in parts(dataset.pop("pipeline"))]
                key = repr((dataset, steps, scale_of(config.model)))
                if key not in seen:
                    seen.add(key)
                    yield str(path), config, name


def test_every_data_set_of_a_table_reads_its_miniature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gc.collect", lambda *_: 0)  # which every data set of mmengine calls
    found = set()
    for path, config, name in distinct():
        shrink_loaders(config, [name], tmp_path, seed=0)
        dataset = config[name].dataset
        with DefaultScope.overwrite_default_scope(config.default_scope):
            data: Any = DATASETS.build(dataset)
        sample = data[len(data) - 1]
        assert len(data) == 4, path
        assert sample["inputs"] is not None, path
        assert Path(dataset.data_root).is_relative_to(tmp_path), path
        for node in parts(config.get(name.replace("dataloader", "evaluator"))):
            assert Path(node.get("ann_file", tmp_path)).is_relative_to(tmp_path), path
        found.add((dataset.type, name))
    assert len(found) >= 25


@pytest.mark.parametrize(
    "name",
    ["corrclip/corrclip_vitb16_voc20.py", "siglip2/siglip2_vitb16_ade20k.py"],
)
def test_equal_calls_write_equal_files_and_say_what_they_are(name: str, tmp_path: Path) -> None:
    first = miniature(load(name), tmp_path / "a")
    kept = digests(tmp_path / "a")
    assert miniature(load(name), tmp_path / "a") == first
    assert digests(tmp_path / "a") == kept
    text = first.read_text()
    assert text.splitlines()[0] == f"# {LABEL}: no number of this config means anything"
    second = miniature(load(name), tmp_path / "b").read_text()
    assert second.replace(str(tmp_path / "b"), str(tmp_path / "a")) == text
    assert digests(tmp_path / "a" / "data") == digests(tmp_path / "b" / "data")
    other = miniature(load(name), tmp_path / "c", seed=1)
    assert other.name == first.name
    photo = next((tmp_path / "c" / "data").rglob("*.jpg"))
    same = tmp_path / "a" / photo.relative_to(tmp_path / "c")
    assert photo.read_bytes() != same.read_bytes()


def test_what_has_no_miniature_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no miniature of None: it has no model and no test_"):
        miniature(Config(dict()), tmp_path)
    config = load("clearclip/clearclip_vitb16_voc20.py")
    config.test_dataloader.dataset.type = "LoveDADatasets"
    with pytest.raises(ValueError, match="'LoveDADatasets': no data set has this name"):
        miniature(config, tmp_path)
    config.default_scope, config.test_dataloader.dataset.type = "mmengine", "ConcatDataset"
    with pytest.raises(ValueError, match="no miniature of a ConcatDataset; known are BaseSegDat"):
        miniature(config, tmp_path)
    config.model.backbone = config.model.decode_head = {"type": "ResNet"}
    with pytest.raises(ValueError, match="OpenVocabSegmentor: no part of it names an arch"):
        miniature(config, tmp_path)
