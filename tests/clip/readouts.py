"""Which of the named readouts need what."""

from __future__ import annotations

from typing import Any

from mmclipdis.clip.towers.readout import READOUTS


def _has(name: str, *fields: str) -> bool:
    readout: Any = READOUTS[name]
    return any(getattr(readout, field, None) for field in fields)


#: Those that need no vision model.
UNGUIDED_READOUTS = sorted(name for name in READOUTS if not _has(name, "affinity"))
#: Those of the last block's q, k and v alone, as the papers up to DeCLIP read it.
PLAIN_READOUTS = [n for n in UNGUIDED_READOUTS if not _has(n, "neighbours", "layers", "weights")]
