"""tools/analysis_tools/residual_weight.py: one pass equals a test at each alpha; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.apis.residual_weight import residual_weight
from mmclipdis.apis.run import test as run_test
from mmclipdis.models.segmentation.residual_sweep import check_sweep, sweep_residual
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.visualization.curve import draw_curve, draw_scatter
from tests.faults.endings import raises
from tests.paths import ROOT

CONFIGS = ROOT / "configs" / "shapes"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alpha") / "data"
    write_dataset(folder, Settings(train=1, val=3, seed=4))
    return folder


def built(name: str, readout: dict[str, Any] | None = None) -> Any:
    """The segmentor of a config of ShapeScenes with its weights, without a test data set."""
    init_default_scope("mmseg")
    config = Config.fromfile(CONFIGS / f"{name}.py")
    if readout is not None:
        config.model.backbone.readout = readout
    model = MODELS.build(config.model)
    model.init_weights()
    model.set_vocabulary(["apple", "banana", "grass", "snow", "water"])
    return model.eval()


@pytest.mark.parametrize("name", ["clearclip", "sclip", "naclip"])
def test_each_alpha_is_the_model_with_that_readout(name: str) -> None:
    """SCLIP has a feed-forward branch behind, NACLIP neighbours; photos of two sizes."""
    swept = built(name)
    readout = swept.backbone.readout
    photos = [torch.randn(3, 96, 132), torch.randn(3, 80, 80)]
    for weight, found in sweep_residual(swept, photos, None, (0.0, 0.4, 1.0)):
        fields = dict(residual="token", residual_weight=weight, ffn=readout.ffn)
        fields |= dict(attention=readout.attention, neighbours=readout.neighbours)
        single = built(name, fields)
        for one, wanted in zip(found, single.predict(photos), strict=True):
            same = one.pred_sem_seg.data == wanted.pred_sem_seg.data
            assert same.float().mean() > 0.999  # a pixel may lie on the edge of two classes


def test_the_blocks_before_the_last_run_once_for_all_alphas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = built("clearclip")
    calls: list[int] = []
    original = model.backbone.tower.embed

    def embed(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return original(images)  # type: ignore[no-any-return]

    monkeypatch.setattr(model.backbone.tower, "embed", embed)
    list(sweep_residual(model, [torch.randn(3, 80, 80)], None, (0, 0.5, 1)))
    assert len(calls) == 1


def test_the_tool_writes_what_a_test_measures(data: Path, tmp_path: Path) -> None:
    config = str(CONFIGS / "clearclip.py")
    options = [f"test_dataloader.dataset.data_root={data}", "log_level=ERROR"]
    out = residual_weight(
        [config, "--weights", "0.5", "0", "--out", str(tmp_path / "a"), "--cfg-options", *options]
    )
    content = json.loads((out / "residual_weight.json").read_text())
    assert [row["weight"] for row in content["rows"]] == [0.0, 0.5]
    options += ["model.backbone.readout.attention=['qq']", "model.backbone.readout.residual=token"]
    options += ["model.backbone.readout.residual_weight=0.5"]
    single = run_test([config, "--work-dir", str(tmp_path / "b"), "--cfg-options", *options])
    assert content["rows"][1]["metrics"] == pytest.approx(single, abs=0.05)
    assert content["rows"][0]["metrics"] != content["rows"][1]["metrics"]
    assert np.asarray(Image.open(out / "residual_weight.png").convert("L")).std() > 10


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("catseg", {}, "CATSeg is no training-free segmentor"),
        ("clip_surgery", {}, "is not read out in its last block alone"),
        ("clearclip", {"model.backbone.readout": "residual"}, "with no attention output"),
        (
            "clearclip",
            {"model.backbone.readout": dict(attention=["qq"], last_blocks=2)},
            "with last_blocks=2",
        ),
        ("clearclip", {"model.backbone.readout": "catseg"}, "with residual='cls'"),
    ],
)
def test_models_without_such_a_residual_are_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    init_default_scope("mmseg")
    config = Config.fromfile(CONFIGS / f"{name}.py")
    config.merge_from_dict(changes)
    raises(message, check_sweep, MODELS.build(config.model))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no.py"], "config 'no.py' does not exist"),
        (
            [
                str(CONFIGS / "clearclip.py"),
                "--cfg-options",
                "test_dataloader.dataset.data_root=no",
            ],
            "no",
        ),
        ([str(CONFIGS / "clearclip.py"), "--out", "FILE"], "cannot make the folder"),
    ],
)
def test_bad_words_end_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = [word.replace("FILE", str(tmp_path / "file")) for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    raises(message, residual_weight, [*given[:1], *out, *given[1:]])


def test_curves_and_scatters_refuse_what_they_cannot_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 places and 1 values"):
        draw_curve([0, 1], [1], tmp_path / "a.png", "", ("x", "y"))
    with pytest.raises(ValueError, match="no points to draw for mAP"):
        draw_scatter({"mAP": {}}, tmp_path / "a.png", "x")
