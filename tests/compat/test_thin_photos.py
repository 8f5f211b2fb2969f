"""Photos of one row or column of pixels go through the transforms of mmcv, mmseg and mmdet."""

from __future__ import annotations

import mmcv
import numpy as np
import pytest
import torch
from mmcv.image.geometric import _scale_size
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

import mmclipdis  # noqa: F401  (installs it)
from mmclipdis.compat.thin_photos import install_thin_photos

SIZES = [(1, 20000), (20000, 1), (2, 2000), (2000, 2)]


@pytest.mark.parametrize("scope", ["mmseg", "mmdet"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_training_steps_take_them(scope: str, size: tuple[int, int], direction: str) -> None:
    pack = {"mmseg": "PackSegInputs", "mmdet": "PackDetInputs"}[scope]
    steps = [
        {"type": "LoadImageFromNDArray"},
        {
            "type": "RandomResize",
            "scale": (160, 160),
            "ratio_range": (0.5, 1.0),
            "keep_ratio": True,
        },
        {"type": "RandomFlip", "prob": 1.0, "direction": direction},
        {"type": pack, "meta_keys": ("ori_shape", "img_shape", "scale_factor")},
    ]
    with DefaultScope.overwrite_default_scope(scope):
        item = Compose(steps)({"img": np.zeros((*size, 3), np.uint8)})
    assert min(item["inputs"].shape) >= 1 and max(item["inputs"].shape) <= 160


def test_nothing_else_changes() -> None:
    install_thin_photos()  # twice is once
    assert _scale_size((30, 20), 0.5) == (15, 10)
    assert _scale_size((30, 20), (0.5, 2.0)) == (15, 40)
    assert _scale_size((20000, 1), 0.01) == (200, 1)
    assert _scale_size((30, 20), 0) == (0, 0)  # a mistake, for OpenCV to refuse
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(mmcv.imflip(image), image[:, ::-1])
    torch.from_numpy(mmcv.imflip(image[:, :1].copy()))
