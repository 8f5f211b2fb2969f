"""One line a photo: ``segment``, ``detect`` and ``tag`` as functions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mmclipdis
from mmclipdis.apis import (
    Segmentation,
    segment,
)
from mmclipdis.apis.inferencers import building
from tests.apis.inferencers.test_segment import NAMES, make_config, photo
from tests.faults.endings import raises
from tests.models.segmentation.fakes import make_segmentor


def test_what_a_model_is_called_is_resolved_by_the_zoo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Any, ...]] = []
    model = make_segmentor(mode="whole").float()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")

    def resolve(*given: Any) -> SimpleNamespace:
        asked.append(given)
        return SimpleNamespace(config=make_config(), checkpoint=str(tmp_path / "a.pth"), info=None)

    monkeypatch.setattr(building, "resolve", resolve)
    result = mmclipdis.segment(photo(), NAMES, device="cpu")
    assert {"red", "blue"} <= set(result.shares())
    assert segment(photo(), NAMES, "own-name", device="cpu").names == tuple(NAMES)
    segment(photo(), None, "own-name", device="cpu")  # it stays in memory
    assert asked == [(None, "segment", None, None), ("own-name", "segment", None, None)]
    # what must be trained is not refused where weights are given, nor what options replace
    segment(photo(), None, "own-name", weights="b.pth", cfg_options={"model.x": 1}, device="cpu")
    assert asked[2] == ("own-name", "segment", "b.pth", {"model.x": 1})


def test_a_function_takes_one_photo_or_several(segmentor, tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    one = segment(tmp_path / "a.png", NAMES, segmentor)
    many = segment(tmp_path, NAMES, segmentor, out_dir=tmp_path / "out")
    assert isinstance(one, Segmentation) and isinstance(many, list)
    assert np.array_equal(one.labels, many[0].labels)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0000_a.png"]
    raises("an OpenVocabTagger is asked for", mmclipdis.tag, photo(), NAMES, segmentor)
    with pytest.raises(AttributeError, match="no attribute 'segmentt'"):
        _ = mmclipdis.segmentt


def test_functions_keep_an_inferencer_of_each_task() -> None:
    def inferencers() -> list[Any]:
        looks = (mmclipdis.segment(photo(), NAMES).look, mmclipdis.tag(photo(), NAMES).look)
        return [look.__self__ for look in looks]

    first, second = inferencers(), inferencers()
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert mmclipdis.tag(photo(), NAMES, precision="bf16").look.__self__ is not first[1]
