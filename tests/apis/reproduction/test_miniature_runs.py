"""A miniature of each kind of table runs by the tools. About 40 s on a free core."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from mmengine.config import Config

from mmclipdis.apis.reproduction.miniature import miniature
from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from tests.paths import ROOT

pytest.importorskip("mmdet")

#: A config of each kind of test -> a metric that it prints.
KINDS = {
    "trident/trident_vitb16_voc21.py": "mIoU",
    "catseg/catseg_vitb16_pc459.py": "mIoU_present",
    "declip/regions_vitb16_eva_coco-panoptic.py": "maskpool_thing_macc1",
    "fvit/fvit_declip_vitb16_ov-coco.py": "coco/novel_ap50",
    "fvit/fvit_openai_vitb16_ov-lvis.py": "lvis/segm_APr",
    "ovdquo/ovdquo_openai_rn50_ov-coco.py": "coco/novel_ap50",
    "fvit/fvit_declip_vitl14-336_lvis2voc07.py": "pascal_voc/mAP",
    "dclip/segments_rn101_coco14.py": "mAP",
    "dclip/zs3_rn101_coco17_nobg.py": "mIoU",
}


@pytest.fixture(autouse=True)
def _plain_dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine lays out the config several times a run, which takes longer than all else."""
    monkeypatch.setattr("mmengine.config.config.FormatCode", lambda text, **_: (text, True))


def load(name: str) -> Config:
    return Config.fromfile(ROOT / "configs" / name)


def options(folder: Path, *more: str) -> list[str]:
    given = ("log_level=ERROR", f"experiment_name={folder.parent.name}_{folder.name}", *more)
    return ["--work-dir", str(folder), "--cfg-options", *given]


@pytest.mark.parametrize("name", KINDS)
def test_a_miniature_is_tested(name: str, tmp_path: Path) -> None:
    config = miniature(load(name), tmp_path)
    metrics = run_test([str(config), *options(tmp_path / "work")])
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics[KINDS[name]] >= 0  # -1: no class was there


def test_a_trained_miniature_fits_the_one_that_measures_it(tmp_path: Path) -> None:
    """A student of a distillation names regions; so a row of DeCLIP's tables 7, 8 and 11."""
    trained = miniature(load("declip/ablations/table8_last3.py"), tmp_path, training=True)
    runner = run_train([str(trained), *options(tmp_path / "work")])
    assert runner.iter == 2
    checkpoint = tmp_path / "work" / "iter_2.pth"
    measured = miniature(load("declip/regions_vitb16_eva_coco-panoptic.py"), tmp_path)
    source = f"model.encoder.init_cfg.checkpoint={checkpoint}"
    metrics = run_test([str(measured), *options(tmp_path / "regions", source)])
    assert 0 <= metrics["maskpool_thing_macc1"] <= 100
