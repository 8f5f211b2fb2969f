"""Which of the named readouts need what, and how they fit a small tower."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmclipdis.clip.towers.readout import READOUTS, AnyReadout, DualPath
from mmclipdis.clip.towers.self_calibrated import SelfCalibrated


def _has(name: str, *fields: str) -> bool:
    readout: Any = READOUTS[name]
    return any(getattr(readout, field, None) for field in fields)


def _is_plain(name: str) -> bool:
    terms = getattr(READOUTS[name], "attention", ("gem",))
    return bool(terms) and "gem" not in terms and not _has(name, "neighbours", "layers", "weights")


#: Those that need no vision model.
UNGUIDED_READOUTS = sorted(name for name in READOUTS if not _has(name, "affinity"))
#: Those of the last block's q, k and v alone, as the papers up to DeCLIP read it.
PLAIN_READOUTS = [name for name in UNGUIDED_READOUTS if _is_plain(name)]


def fitted(name: str) -> AnyReadout:
    """The named readout for a tower of three blocks and windows of a few patches."""
    readout = READOUTS[name]
    if isinstance(readout, DualPath):
        return replace(readout, blocks=2)
    if isinstance(readout, SelfCalibrated):
        return replace(readout, deep=1, mid=0, summed=(0, 1), k=5, outliers=0.2)
    return replace(readout, layers=(0, 1)) if readout.layers else readout
