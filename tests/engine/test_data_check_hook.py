"""Stock pipelines load as ours do once the hook has seen them. Takes no time."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.dataset import Compose
from PIL import Image

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.datasets import LoadReadableImage
from mmclipdis.engine.data_check_hook import LabelsAgree, guard_loading

STOCK = {"type": "LoadImageFromFile", "to_float32": True}


def test_mmcvs_loader_is_replaced_wherever_it_stands() -> None:
    nested = {
        "type": "TestTimeAug",
        "transforms": [[dict(STOCK)], [{"type": "Pad", "size": (4, 4)}]],
    }
    tiff = {"type": "LoadImageFromFile", "imdecode_backend": "tifffile"}
    steps = Compose([dict(STOCK), nested, tiff]).transforms
    guard_loading(steps)
    inside = steps[1].subroutines[0].transforms[0]
    for loader in (steps[0], inside):
        assert type(loader) is LoadReadableImage and loader.to_float32
    assert type(steps[2]).__name__ == "LoadImageFromFile"


def test_label_maps_of_mmsegs_loader_are_compared_once() -> None:
    steps = Compose([dict(STOCK), {"type": "mmseg.LoadAnnotations"}]).transforms
    guard_loading(steps)
    guard_loading(steps)
    assert [isinstance(step, LabelsAgree) for step in steps] == [False, False, True]


def test_a_stock_pipeline_decodes_nothing_above_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    pipeline = Compose([dict(STOCK)])
    assert pipeline({"img_path": str(tmp_path / "a.png")})["img"].shape == (30, 40, 3)
    guard_loading(pipeline.transforms)
    monkeypatch.setenv("MMCLIPDIS_MAX_PIXELS", "1000")
    with pytest.raises(ValueError, match="a.png has 40 x 30 = 1,200 pixels, more than the limit"):
        pipeline({"img_path": str(tmp_path / "a.png")})
