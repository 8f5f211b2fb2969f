"""Losses that are named in heads of mmseg, mmdet and mmpretrain, which have a call of their own.

Such a head builds whatever its config names and calls it with scores and labels, hundreds of steps
later. A loss that is made from something else must refuse when the head is built; but it is not
told who builds it. Whoever calls mmengine's registry is asked for, on the stack: only code of these
packages has their call, and a head of our own, or of a user, calls as it pleases.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

#: Packages whose heads call a loss with scores and labels.
LIBRARIES = ("mmseg", "mmdet", "mmpretrain")


def head_that_builds(loss: Any, fits: str, libraries: Sequence[str] = ()) -> Any:
    """The head of a stock library that is building a loss; None if somebody else does.

    Args:
        loss: The loss, whose constructor asks.
        fits: What it is for, for the message.
        libraries: Those of :data:`LIBRARIES` whose call it takes.

    Raises:
        ValueError: a head of another one builds it.
    """
    frame = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        between = name.startswith("mmengine.") or name.endswith(".models.builder")
        if frame.f_locals.get("self") is not loss and not between:
            library = name.split(".")[0]
            if library not in LIBRARIES:
                return None
            head = frame.f_locals.get("self")
            if library not in libraries:
                refuse(loss, head, f"which {library} calls with class scores and labels", fits)
            return head
        frame = frame.f_back  # type: ignore[assignment]
    return None


def refuse(loss: Any, head: Any, reason: str, fits: str) -> None:
    """Refuse to be a loss of a head.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"{type(loss).__name__} does not fit {type(head).__name__}, {reason}: it is for {fits}"
    )
