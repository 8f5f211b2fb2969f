"""Options of OV-DQUO, checked before anything is trained or tested with them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from math import inf
from typing import Any

from mmengine.config import ConfigDict

#: What ``test_cfg`` is where it says nothing; OV-COCO's, without a factor for novel classes.
TEST_CFG: Mapping[str, Any] = {
    "temperature": 100.0,
    "target_class_factor": 1.0,
    "score_thr": 0.001,
    "nms": {"type": "nms", "iou_threshold": 0.5},
    "max_per_img": 100,
}


def checked_test_cfg(given: Mapping[str, Any] | None) -> ConfigDict:
    """``test_cfg`` with the defaults for what it leaves out.

    Raises:
        ValueError: an unknown option, or a value that it cannot have.
    """
    given = dict(given or {})
    for name in given:
        if name not in TEST_CFG:
            close = difflib.get_close_matches(str(name), TEST_CFG, n=1)
            end = f"do you mean {close[0]!r}?" if close else f"it has {', '.join(TEST_CFG)}"
            raise ValueError(f"test_cfg has no option {name!r}; {end}")
    cfg = ConfigDict({**TEST_CFG, **given})
    for name in ("temperature", "target_class_factor"):
        if not _is_positive(cfg[name]):
            raise ValueError(f"test_cfg.{name} must be a positive number, got {cfg[name]!r}")
    if not isinstance(cfg.score_thr, (int, float)):
        raise ValueError(f"test_cfg.score_thr must be a number, got {cfg.score_thr!r}")
    if not isinstance(cfg.max_per_img, int):
        raise ValueError(f"test_cfg.max_per_img must be a whole number, got {cfg.max_per_img!r}")
    nms = cfg.nms
    known = isinstance(nms, Mapping) and nms.get("type", "nms") in ("nms", "soft_nms")
    if nms is not None and not (known and isinstance(nms.get("iou_threshold"), (int, float))):
        raise ValueError(
            "test_cfg.nms must be as dict(type='nms', iou_threshold=0.5), of type 'nms' or "
            f"'soft_nms', or None, got {nms!r}"
        )
    return cfg


def check_queries(query_temperature: float, wildcard_iou: float) -> None:
    """Check how queries choose what they ask for.

    Raises:
        ValueError: a value outside its range.
    """
    if not _is_positive(query_temperature):
        raise ValueError(f"query_temperature must be a positive number, got {query_temperature!r}")
    if not (isinstance(wildcard_iou, (int, float)) and 0 <= wildcard_iou <= 1):
        raise ValueError(f"wildcard_iou is an IoU, in [0, 1], got {wildcard_iou!r}")


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < inf
