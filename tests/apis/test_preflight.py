"""Missing data are one line that says what to set, for data sets of any origin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmclipdis.apis import cli
from mmclipdis.apis.preflight import check_data
from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from tests.paths import ROOT

CONFIGS = ROOT / "configs"


@pytest.mark.parametrize(
    ("tool", "name", "message"),
    [
        (run_test, "clearclip/clearclip_vitb16_voc21.py", "PascalVOCDataset: no image folder"),
        (run_test, "clearclip/clearclip_vitb16_voc20.py", "PascalVOC20Dataset: no image folder"),
        (run_test, "sclip/sclip_vitb16_context59.py", "PascalContextDataset59: no image folder"),
        (run_test, "clearclip/clearclip_vitb16_context60.py", "PascalContextDataset: no image"),
        (run_test, "shapes/clearclip.py", "ShapeScenesDataset: no image folder"),
        (run_train, "declip/catseg_vitb16_coco-stuff.py", "COCOStuffDataset: no image folder"),
        (run_train, "camvid/catseg.py", "BaseSegDataset: no image folder"),
        (run_train, "shapes/fvit.py", "OVCocoDataset: no image folder"),
        (run_test, "fvit/fvit_clipself_vitl14-336_lvis2voc07.py", "VOCDataset: no image folder"),
    ],
)
def test_absent_data_are_one_line_before_weights_are_loaded(
    tool: Callable[..., object], name: str, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)  # where no data are
    with pytest.raises(SystemExit):
        cli.run(tool, [str(CONFIGS / name)])
    line = capsys.readouterr().err
    assert line.startswith(f"error: {message}") and "set data_root" in line
    assert line.count("\n") == 1


def dataset(root: Path, **options: Any) -> dict[str, Any]:
    return {
        "type": "PascalVOCDataset",
        "data_root": str(root),
        "data_prefix": {"img_path": "photos"},
        **options,
    }


def check(*datasets: dict[str, Any]) -> None:
    for joined in (datasets[0], {"type": "ConcatDataset", "datasets": list(datasets)}):
        wrapped = {"type": "RepeatDataset", "times": 2, "dataset": joined}
        for config in (joined, wrapped):
            check_data(Config({"train_dataloader": {"dataset": config}}), ["train_dataloader"])


def test_photos_of_another_kind_are_named(tmp_path: Path) -> None:
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "deep" / "a.png").touch()
    with pytest.raises(FileNotFoundError, match=r"photos' ends with '\.jpg'; set img_suffix"):
        check(dataset(tmp_path))
    check(dataset(tmp_path, img_suffix=".png"))


def test_a_split_file_must_exist(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no split file .*val\.txt'; set ann_file"):
        check(dataset(tmp_path, ann_file="val.txt"))
    (tmp_path / "val.txt").touch()
    check(dataset(tmp_path, ann_file="val.txt"))


def test_other_kinds_of_data_are_not_looked_at() -> None:
    check({"type": "mmdet.CocoDataset", "data_root": "nowhere"})
    check(dataset(Path("x"), data_root="s3://bucket"))
    check_data(Config({}), ["test_dataloader"])


def test_a_missing_folder_of_photos_is_noticed_before_any_training(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    boxes = {"type": "CocoDataset", "data_root": str(tmp_path), "data_prefix": {"img": "photos"}}
    absent = {**boxes, "data_prefix": {"img": "val2017"}}
    config = {name: {"dataset": boxes} for name in ("train_dataloader", "val_dataloader")}
    check_data(Config(config), list(config))
    config["val_dataloader"] = {"dataset": absent}
    with pytest.raises(FileNotFoundError, match=r"CocoDataset: no image folder .*val2017'; set"):
        check_data(Config(config), list(config))


def test_a_name_that_mmseg_and_mmdet_share_is_that_of_the_scope(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a_leftImg8bit.png").touch()
    prefix = {"img_path": "photos", "seg_map_path": "absent"}
    shared = {"type": "CityscapesDataset", "data_root": str(tmp_path), "data_prefix": prefix}
    loaders = {"test_dataloader": {"dataset": shared}}
    check_data(Config({**loaders, "default_scope": "mmseg"}), ["test_dataloader"])
    with pytest.raises(FileNotFoundError, match=r"no image folder .*absent'"):
        check_data(Config({**loaders, "default_scope": "mmdet"}), ["test_dataloader"])
