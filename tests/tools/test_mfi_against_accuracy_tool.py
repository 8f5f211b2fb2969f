"""tools/analysis_tools/mfi_against_accuracy.py: where its points come from, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmclipdis.apis import cli
from mmclipdis.apis.mfi_against_accuracy import (
    accuracy_in,
    correlation,
    mfi_against_accuracy,
    points_of,
)
from mmclipdis.clip.text.encoder import build_text_tower
from mmclipdis.clip.weights.loading import load_text_transformer
from mmclipdis.models.projectors import Projectors
from tests.faults.endings import raises
from tests.paths import ROOT
from tools.analysis_tools import mfi_against_accuracy as tool

NAMES = ["apple", "banana", "red fish", "snow"]
RESULTS = ROOT / "results" / "shapes_dclip.json"


def log(folder: Path, time: str, **metrics: float) -> None:
    """What mmengine writes of a test."""
    (folder / time).mkdir(parents=True)
    (folder / time / f"{time}.json").write_text(json.dumps(metrics))


def training(folder: Path, seed: int) -> Projectors:
    """A work folder with a checkpoint of DCLIP and two tests."""
    torch.manual_seed(seed)
    projectors = Projectors(64, out_dim=16, arch="shapes-tiny").eval()
    torch.nn.init.normal_(projectors.text[1].bias, std=0.1)
    folder.mkdir()
    state = {f"projectors.{key}": value for key, value in projectors.state_dict().items()}
    torch.save({"state_dict": state, "meta": {}, "message_hub": {}}, folder / "epoch_3.pth")
    log(folder / "labels", "20260101_000000", mAP=50.0)
    log(folder / "labels", "20260102_000000", mAP=90.0 + seed, mF1=1.0)
    log(folder / "segmentation", "20260101_000001", mIoU=40.0 + seed, aAcc=7.0)
    return projectors


def naive_cosine(projectors: Projectors) -> float:
    """Mean over pairs of classes, one after the other."""
    tower = build_text_tower("shapes-tiny").eval()
    load_text_transformer(tower.text, "shapes-tiny", "shapes")
    with torch.no_grad():
        texts = tower(tower.tokenize([f"a photo of a {name}" for name in NAMES]))
        rows = projectors.text(F.normalize(texts, dim=1)).double()
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    return float(np.mean([F.cosine_similarity(rows[i], rows[j], dim=0).item() for i, j in pairs]))


def test_work_folders_give_the_last_tests_and_the_cosine_of_their_checkpoint(
    tmp_path: Path,
) -> None:
    projectors = [training(tmp_path / name, seed) for seed, name in enumerate(("one", "two"))]
    folders = [str(tmp_path / name) for name in ("one", "two")]
    out = mfi_against_accuracy(
        [*folders, "--classes", ",".join(NAMES), "--device", "cpu", "--out", str(tmp_path / "out")]
    )
    content = json.loads((out / "mfi_against_accuracy.json").read_text())
    assert [point["name"] for point in content["points"]] == ["one", "two"]
    for seed, point in enumerate(content["points"]):
        assert point["accuracy"] == {"mAP": 90.0 + seed, "mIoU": 40.0 + seed}
        assert point["mean_cosine"] == pytest.approx(naive_cosine(projectors[seed]), abs=1e-5)
    assert content["correlation"] == {"mAP": None, "mIoU": None}  # two points lie on a line


def test_rows_of_results_are_taken_as_they_are(tmp_path: Path) -> None:
    out = mfi_against_accuracy([str(RESULTS), "--out", str(tmp_path)])
    points = json.loads((out / "mfi_against_accuracy.json").read_text())["points"]
    rows = {row["name"]: row["metrics"] for row in json.loads(RESULTS.read_text())["rows"]}
    assert {point["name"] for point in points} == {n for n, m in rows.items() if "mean_cosine" in m}
    row = rows["ASL + MFI"]
    (mfi,) = (point for point in points if point["name"] == "ASL + MFI")
    assert mfi["mean_cosine"] == row["mean_cosine"]["mean"]
    assert mfi["accuracy"] == {name: row[name]["mean"] for name in ("mAP", "mIoU")}
    picture = np.asarray(Image.open(out / "mfi_against_accuracy.png").convert("RGB")).astype(int)
    blue = (picture[..., 2] - picture[..., 0] > 60).any(axis=0)
    half = picture.shape[1] // 2
    assert blue[:half].any() and blue[half:].any()  # dots in both panels
    with pytest.raises(FileExistsError, match="--overwrite"):
        mfi_against_accuracy([str(RESULTS), "--out", str(tmp_path)])


def test_two_points_of_a_name_keep_apart(tmp_path: Path) -> None:
    out = mfi_against_accuracy([str(RESULTS), str(RESULTS), "--out", str(tmp_path)])
    points = json.loads((out / "mfi_against_accuracy.json").read_text())["points"]
    assert [p["name"] for p in points][3:] == ["CLIP #2", "ASL #2", "ASL + MFI #2"]


def test_the_correlation_is_pearsons() -> None:
    x, y = [0.1, 0.4, 0.5, 0.9], [90.0, 80.0, 85.0, 60.0]
    mx, my = sum(x) / 4, sum(y) / 4
    above = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    below = sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y)
    assert correlation(zip(x, y, strict=True)) == pytest.approx(above / below**0.5)
    assert correlation([(0, 1), (1, 2)]) is None
    assert correlation([(0, 1), (1, 1), (2, 1)]) is None


def test_logs_of_trainings_and_of_sweeps_are_no_tests(tmp_path: Path) -> None:
    log(tmp_path, "20260101_000000", **{"0.5/mIoU": 3.0})
    (tmp_path / "20260102_000000").mkdir()
    lines = tmp_path / "20260102_000000" / "20260102_000000.json"
    lines.write_text('{"loss": 1.0}\n{"mIoU": 2.0}\n')
    (tmp_path / "scalars.json").write_text('{"mIoU": 9.0}')
    assert accuracy_in(tmp_path) == {}


def results(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text(json.dumps({"rows": rows}))
    return str(path)


def test_bad_sources_end_in_one_line(tmp_path: Path) -> None:
    empty, tested_only = tmp_path / "empty", tmp_path / "tested"
    empty.mkdir()
    log(tested_only, "20260101_000000", mAP=50.0)
    wrong = results(tmp_path / "a.json", dict(name="x", metrics=dict(AP=3)))
    known = dict(name="x", metrics=dict(mAP=3), checkpoint="x.pth")
    (tmp_path / "b.json").write_text("[1]")
    training(tmp_path / "one", 0)
    for words, message in {
        (str(tmp_path / "no"),): "no work folder and no file of results at",
        (str(empty),): "holds no log of a test with mAP or mIoU: run tools/test.py",
        (str(tested_only),): "no checkpoint in .*name the work folder of a training",
        (wrong,): "no row with mAP or mIoU",
        (str(tmp_path / "b.json"),): "is no file of results",
        (str(tmp_path / "one"),): "name the classes, such as --classes",
        (results(tmp_path / "c.json", known), "--classes", "a,b"): "x.pth",
    }.items():
        raises(message, mfi_against_accuracy, [*words, "--out", str(tmp_path / "out")])
    assert points_of(str(tmp_path / "one"))[0].checkpoint == str(tmp_path / "one" / "epoch_3.pth")


def test_the_tool_calls_it() -> None:
    assert tool.mfi_against_accuracy is mfi_against_accuracy and tool.run is cli.run
