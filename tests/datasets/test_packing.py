"""Texts that somebody asks for reach the model, whatever the last step's meta_keys are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mmclipdis  # noqa: F401  (registers the steps)
from mmclipdis.models.asked_names import asked_names

PACKERS = {"mmdet": "PackDetInputs", "mmseg": "PackSegInputs"}


def pack(package: str, **told: Any) -> Any:
    registry = pytest.importorskip(f"{package}.registry").TRANSFORMS
    step = registry.build({"type": PACKERS[package], "meta_keys": ("img_path",)})
    image = np.zeros((4, 6, 3), np.uint8)
    return step({"img": image, "img_path": "a.png", "ori_shape": (4, 6), **told})


@pytest.mark.parametrize("package", PACKERS)
def test_texts_are_kept_beside_the_meta_keys(package: str) -> None:
    told = dict(text="kite . red apple", custom_entities=True, tokens_positive=None)
    packed = pack(package, **told)
    assert packed["inputs"].shape == (3, 4, 6)
    meta = packed["data_samples"].metainfo
    assert meta == dict(img_path="a.png", text="kite . red apple", custom_entities=True)
    assert asked_names(packed["data_samples"]) == (("kite",), ("red apple",))


@pytest.mark.parametrize("package", PACKERS)
def test_without_texts_nothing_is_added(package: str) -> None:
    assert pack(package)["data_samples"].metainfo == dict(img_path="a.png")


def test_stuff_of_panoptic_models_is_refused() -> None:
    sample = pack("mmdet", text="kite", stuff_text="sky")["data_samples"]
    with pytest.raises(ValueError, match="stuff_texts .* write all names into texts"):
        asked_names(sample)
