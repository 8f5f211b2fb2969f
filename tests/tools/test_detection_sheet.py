"""tools/analysis_tools/detection_sheet.py: which photos and boxes are drawn, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from PIL import Image

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.apis import detection_sheet as sheet
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.visualization.boxes import draw_boxes
from tests.faults.endings import ends_in
from tests.paths import ROOT

CONFIG = ROOT / "configs" / "shapes" / "fvit.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three test photos, and a detector whose weights are random, but for CLIP's."""
    folder = tmp_path_factory.mktemp("sheet")
    write_dataset(folder, Settings(train=1, val=3, seed=4))
    init_default_scope("mmdet")
    torch.manual_seed(0)
    config = Config.fromfile(CONFIG)
    model = MODELS.build(config.model)
    model.init_weights()
    meta = {"dataset_meta": dict(config.test_dataloader.dataset.metainfo)}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, folder / "fvit.pth")
    return folder


def words(folder: Path, out: Path, *more: object) -> list[str]:
    options = (f"test_dataloader.dataset.data_root={folder}/", "model.test_cfg.rcnn.score_thr=0.0")
    given = [CONFIG, folder / "fvit.pth", "--out", out, "--device", "cpu", "--photos", 2, *more]
    return list(map(str, (*given, "--cfg-options", *options)))


def test_as_many_boxes_as_are_true_are_drawn_or_those_above_a_score(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[np.ndarray, np.ndarray, list[str]]] = []

    def draw(photo: np.ndarray, boxes: np.ndarray, labels: Any, texts: Any, count: int) -> Any:
        calls.append((photo, boxes, texts))
        assert count == 12 and len(boxes) == len(labels) == len(texts)
        return draw_boxes(photo, boxes, labels, texts, count)

    monkeypatch.setattr(sheet, "draw_boxes", draw)
    out = sheet.detection_sheet(words(folder, tmp_path / "a.png"))
    true, found = calls[:2], calls[2:]
    assert len(found) == 2 and Image.open(out).width > 3 * sheet.HEIGHT / 2
    config = Config.fromfile(CONFIG)
    config.test_dataloader.dataset.data_root = f"{folder}/"
    info = sheet._test_data(config).get_data_info(0)
    scale = sheet.HEIGHT / info["height"]
    np.testing.assert_allclose(true[0][1], scale * np.array([b["bbox"] for b in info["instances"]]))
    for (photo, boxes, _), (_, surest, scored) in zip(true, found, strict=True):
        assert len(photo) == sheet.HEIGHT and len(surest) == len(boxes) > 0
        values = [float(text.split()[-1]) for text in scored]
        assert values == sorted(values, reverse=True)
    del calls[:]
    sheet.detection_sheet(words(folder, tmp_path / "b.png", "--score", 2))
    assert [len(boxes) for _, boxes, _ in calls[2:]] == [0, 0]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("--titles", "a,b"), "--titles has 2 names for 1 detectors"),
        (("--out", "."), "'.' is a folder; name a file in it"),
        (("--device", "cuda:77"), "device 'cuda:77' cannot be used here"),
    ],
)
def test_bad_options(folder: Path, tmp_path: Path, capsys, more: Any, line: str) -> None:
    ends_in(line, sheet.detection_sheet, words(folder, tmp_path / "c.png", *more), capsys)


def test_a_config_without_checkpoint_and_a_detector_of_other_classes(
    folder: Path, tmp_path: Path, capsys
) -> None:
    given = words(folder, tmp_path / "d.png")
    ends_in("3 files: each detector is a CONFIG", sheet.detection_sheet, ["x.py", *given], capsys)
    cat = InstanceData(
        bboxes=torch.zeros(1, 4),
        scores=torch.zeros(1),
        labels=torch.zeros(1, dtype=torch.long),
        label_names=["cat"],
    )
    line = "finds the class {}, which the first config's test data do not have"
    with pytest.raises(ValueError, match=line.format("'cat'")):
        sheet._named(cat, ["apple", "kite"])
    del cat.label_names  # of a stock detector
    cat.labels += 2
    with pytest.raises(ValueError, match=line.format("'2'")):
        sheet._named(cat, ["apple", "kite"])


def test_a_checkpoint_that_is_not_there_and_a_config_of_another_task(
    folder: Path, tmp_path: Path, capsys
) -> None:
    out = ("--out", str(tmp_path / "e.png"))
    data = ("--cfg-options", f"test_dataloader.dataset.data_root={folder}/")
    call = sheet.detection_sheet
    ends_in("no checkpoint at no.pth", call, [str(CONFIG), "no.pth", *out, *data], capsys)
    ends_in("config 'no.py' does not exist", call, ["no.py", "no.pth", *out], capsys)
    other = str(CONFIG.with_name("clip.py"))
    ends_in("finds no boxes: its default_scope is 'mmseg'", call, [other, "x.pth", *out], capsys)
