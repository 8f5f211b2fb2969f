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
#: What mmcv's kinds of NMS take besides ``iou_threshold``.
NMS: Mapping[str, tuple[str, ...]] = {
    "nms": ("class_agnostic", "max_num", "offset", "score_threshold", "split_thr"),
    "soft_nms": ("class_agnostic", "method", "min_score", "offset", "sigma", "split_thr"),
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
    if not (_is_number(cfg.score_thr) and cfg.score_thr < 1):  # false for NaN as well
        raise ValueError(
            f"test_cfg.score_thr must be a number below 1, the highest score, got {cfg.score_thr!r}"
        )
    if not _is_whole(cfg.max_per_img):
        raise ValueError(f"test_cfg.max_per_img must be a whole number, got {cfg.max_per_img!r}")
    _check_nms(cfg.nms)
    return cfg


def _check_nms(nms: Any) -> None:
    if nms is None:
        return
    known = NMS.get(nms.get("type", "nms")) if isinstance(nms, Mapping) else None
    threshold: Any = nms.get("iou_threshold") if known else None
    if known is None or not (_is_number(threshold) and 0 <= threshold <= 1):
        raise ValueError(
            "test_cfg.nms must be as dict(type='nms', iou_threshold=0.5), of type 'nms' or "
            f"'soft_nms' and with an IoU from 0 to 1, or None, got {nms!r}"
        )
    others = [name for name in nms if name not in ("type", "iou_threshold", *known)]
    if others:
        raise ValueError(
            f"test_cfg.nms has {', '.join(map(repr, others))}, which is no option of "
            f"{nms.get('type', 'nms')!r}: besides iou_threshold it has {', '.join(known)}"
        )


def check_model(
    text_queries: bool,
    query_temperature: float,
    max_classes: int,
    wildcard_iou: float,
    num_queries: int,
    return_intermediate: bool,
) -> None:
    """Check the options of the detector itself.

    Raises:
        ValueError: a value outside its range.
    """
    if not isinstance(text_queries, bool):
        raise ValueError(f"text_queries is True or False, got {text_queries!r}")
    for name, value in (("max_classes", max_classes), ("num_queries", num_queries)):
        if not (_is_whole(value) and value > 0):
            raise ValueError(f"{name} must be a whole number above 0, got {value!r}")
    if not return_intermediate:
        raise ValueError(
            "every layer of the decoder is taught and refined: set return_intermediate=True on "
            "OVDQUO.decoder"
        )
    if not _is_positive(query_temperature):
        raise ValueError(f"query_temperature must be a positive number, got {query_temperature!r}")
    if not (_is_number(wildcard_iou) and 0 <= wildcard_iou <= 1):
        raise ValueError(f"wildcard_iou is an IoU, in [0, 1], got {wildcard_iou!r}")


def check_denoising(num_queries: int, label_noise: float, box_noise_scale: float) -> None:
    """Check the options of ``dn_cfg``.

    Raises:
        ValueError: a value outside its range.
    """
    if not (_is_whole(num_queries) and num_queries > 0):
        raise ValueError(f"dn_cfg.num_queries must be a whole number above 0, got {num_queries!r}")
    if not (_is_number(label_noise) and 0 <= label_noise <= 1):
        raise ValueError(f"dn_cfg.label_noise is a probability, got {label_noise!r}")
    if not _is_positive(box_noise_scale):
        raise ValueError(f"dn_cfg.box_noise_scale must be positive, got {box_noise_scale!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < inf
