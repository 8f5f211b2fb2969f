"""Checkpoints of InfoCLIP and of the segmentor inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

STUDENT = "segmentor."
_MODULE = "lpam."


def student_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The segmentor's state dict out of InfoCLIP's; the alignment module served its training.

    Args:
        state: State dict of a training of InfoCLIP.

    Raises:
        ValueError: it is that of another model, or holds anything else.
    """
    student = {
        name.removeprefix(STUDENT): v for name, v in state.items() if name.startswith(STUDENT)
    }
    if not student:
        what = "CAT-Seg itself, which needs no conversion" if "decode_head" in _tops(state) else ""
        raise ValueError(
            f"not a checkpoint of InfoCLIP: no name begins with {STUDENT!r}, but with "
            f"{', '.join(sorted(_tops(state))[:5]) or 'nothing'}{what and f' ({what})'}"
        )
    others = [name for name in state if not name.startswith((STUDENT, _MODULE))]
    no_tensors = [name for name, value in student.items() if not isinstance(value, Tensor)]
    for problem, names in (("unknown names", others), ("entries that are no tensors", no_tensors)):
        if names:
            raise ValueError(
                f"a checkpoint of InfoCLIP with {problem}: {names[:5]} ({len(names)} in all); "
                "remove them if they are yours"
            )
    return student


def _tops(state: Mapping[str, Any]) -> set[str]:
    return {str(name).split(".")[0] for name in state}
