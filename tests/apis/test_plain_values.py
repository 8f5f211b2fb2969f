"""Values of a config are compared with the annotations of our classes, and only with plain ones."""

from __future__ import annotations

import re
from typing import Any

import pytest
from mmengine.config import Config

import mmclipdis.models  # noqa: F401  (registers)
from mmclipdis.apis.config_check import UserInputError
from mmclipdis.apis.plain_values import check_plain_values
from tests.paths import ROOT

SOUND: dict[str, dict[str, Any]] = {
    "whole number for a weight": {"type": "ContentLoss", "loss_weight": 2},
    "a text for a class that takes many things": {"type": "ClearCLIPViT", "readout": "qq"},
    "zero for False": {"type": "GatheredBCELoss", "ignore_as_negative": 0},
    "another package's class": {"type": "CrossEntropyLoss", "loss_weight": "x"},
    "no class": {"type": "NobodysLoss", "loss_weight": "x"},
    "a scope": {"type": "mmseg.CosineSegHead", "num_classes": None, "area_thd": 0.1},
}


@pytest.mark.parametrize("case", SOUND)
def test_sound_values_pass(case: str) -> None:
    check_plain_values(Config({"model": {"parts": [SOUND[case]]}}))


def test_values_of_another_type_are_named() -> None:
    part = {"type": "mmseg.CosineSegHead", "num_classes": "many"}
    line = "model.parts.0.num_classes must be a whole number or None, got 'many' (CosineSegHead)"
    with pytest.raises(UserInputError, match=re.escape(line)):
        check_plain_values(Config({"model": {"parts": [part]}}))


@pytest.mark.parametrize("value", ["1.0", True, float("nan"), [1.0], None])
def test_what_is_no_weight(value: object) -> None:
    with pytest.raises(UserInputError, match="loss_weight must be a number"):
        check_plain_values({"type": "ContentLoss", "loss_weight": value})


def test_configs_of_the_package_pass() -> None:
    """Of all methods and data sets; reading all of them takes half a minute."""
    paths = [p for p in sorted((ROOT / "configs").rglob("*.py")) if "_base_" not in p.parts]
    assert len(paths) > 150
    for path in paths[::12]:
        check_plain_values(Config.fromfile(path))


@pytest.mark.parametrize("key", ["score_thr", "iou_threshold", "max_per_img", "nms_pre"])
def test_numbers_that_a_detector_tests_with(key: str) -> None:
    with pytest.raises(UserInputError, match=rf"model\.test_cfg\.rcnn\.{key} must be a number"):
        check_plain_values(Config({"model": {"test_cfg": {"rcnn": {key: "x"}}}}))
