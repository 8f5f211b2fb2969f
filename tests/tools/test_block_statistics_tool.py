"""tools/analysis_tools/block_statistics.py: which images and weights, what it writes, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmclipdis.apis import cli
from mmclipdis.apis.block_statistics import block_statistics, middle
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.weights.loading import load_image_tower
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.utils.statistics import CLIP
from mmclipdis.visualization.block_statistics import BlockStatistics
from tests.faults.endings import raises
from tests.paths import ROOT
from tools.analysis_tools import block_statistics as tool

CONFIG = str(ROOT / "configs" / "shapes" / "clearclip.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blocks") / "data"
    write_dataset(folder, Settings(train=1, val=3, seed=4))
    return folder


def written(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "blocks.json").read_text())
    return content


def expected(paths: list[Path]) -> list[Any]:
    """By the tower itself, an image at a time."""
    tower = build_image_tower("shapes-tiny").eval()
    load_image_tower(tower, "shapes-tiny", "shapes")
    statistics = BlockStatistics(tower)
    for path in paths:
        photo = np.asarray(Image.open(path).convert("RGB"))
        statistics.add(middle(photo, tower.image_size, CLIP)[None])
    found: list[Any] = statistics.report()["blocks"]
    return found


def close(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        for part in a:
            for name, value in a[part].items():
                np.testing.assert_allclose(value, b[part][name], rtol=1e-4, atol=1e-5)


def test_a_folder_of_photos_and_the_packaged_clip(data: Path, tmp_path: Path) -> None:
    photos = sorted((data / "images" / "val").glob("*"))
    out = block_statistics([str(data / "images" / "val"), "--out", str(tmp_path / "a")])
    content = written(out)
    close(content["blocks"], expected(photos))
    assert content["images"] == 3 and content["settings"]["model"] == "shapes-tiny"
    lines = list(csv.DictReader((out / "blocks.csv").read_text().splitlines()))
    last = content["blocks"][-1]["ffn"]
    assert [line["part"] for line in lines[-4:]] == ["residual", "attention", "ffn", "output"]
    assert float(lines[-2]["entropy"]) == pytest.approx(last["entropy"], rel=1e-5)
    assert np.asarray(Image.open(out / "blocks.png").convert("L")).std() > 10
    with pytest.raises(FileExistsError, match="--overwrite"):
        block_statistics([str(data), "--out", str(out)])


def test_the_test_split_of_a_config_whatever_its_readout(data: Path, tmp_path: Path) -> None:
    words = ["--config", CONFIG, "--limit", "2", "--batch-size", "1", "--out", str(tmp_path)]
    words += ["--cfg-options", f"test_dataloader.dataset.data_root={data}"]
    content = written(block_statistics(words))
    photos = sorted((data / "images" / "val").glob("*"))[:2]
    close(content["blocks"], expected(photos))
    assert content["images"] == 2


@pytest.mark.parametrize("size", [(50, 90), (90, 50), (31, 31), (7, 200)])
def test_the_middle_of_a_photo_is_cut_at_its_own_proportions(size: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]]
    photo = np.stack([rows * 255 // size[0], columns * 255 // size[1], rows * 0], -1)
    found = middle(photo.astype(np.uint8), (32, 32), CLIP)
    assert found.shape == (3, 32, 32) and found.dtype == torch.float32
    mean, std = CLIP.of_bytes
    back = found.permute(1, 2, 0).numpy() * np.array(std) + np.array(mean)
    short = min(size)
    for axis, length in enumerate(size):
        centre = back[14:18, 14:18, axis].mean()
        assert centre == pytest.approx(127.5, abs=300 / short)
        spread = back[..., axis].max() - back[..., axis].min()
        assert spread == pytest.approx(255 * short / length, abs=600 / short)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no images: name a folder of them, or give --config"),
        (["nowhere"], "no folder of images at 'nowhere'"),
        (["EMPTY"], r"no image \(.jpg, .png, ...\) in"),
        (["EMPTY", "--config", CONFIG, "--arch", "ViT-B-16"], "leave --arch out"),
        (["EMPTY", "--cfg-options", "a=1"], "give --config, too"),
        (["EMPTY", "--config", "no.py"], "config 'no.py' does not exist"),
        (["PHOTO", "--arch", "ViT-B-16"], "--arch ViT-B-16 needs --checkpoint as well"),
        (["PHOTO", "--size", "33"], "--size 33 is no whole patches of 8 x 8 px"),
        (["TEXT"], "cannot read .* as an image"),
    ],
)
def test_bad_words_end_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jpg").write_text("no photo")
    Image.new("RGB", (40, 40)).save(tmp_path / "b.png")
    places = {"EMPTY": "empty", "PHOTO": "b.png", "TEXT": "a.jpg"}
    given = [str(tmp_path / places[word]) if word in places else word for word in words]
    raises(message, block_statistics, [*given, "--out", str(tmp_path / "out")])


def test_a_tower_without_blocks_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "b.png")
    config = tmp_path / "resnet.py"
    config.write_text(
        "model = dict(backbone=dict(type='CLIPResNet', readout='v', init_cfg=None, arch=dict("
        "embed_dim=32, quick_gelu=True, vision_cfg=dict(image_size=64, layers=[1, 1, 1, 1], "
        "width=8), text_cfg=dict(context_length=16, vocab_size=100, width=32, heads=2, "
        "layers=2))))\n"
    )
    words = [str(tmp_path / "b.png"), "--config", str(config), "--out", str(tmp_path / "out")]
    raises("CLIPResNet.* has no transformer blocks", block_statistics, words)


def test_the_tool_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tool.block_statistics is block_statistics and tool.run is cli.run
