"""Who may use a model that several threads share."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any


class Turn:
    """``with turn:`` one thread at a time; a copy, also a pickled one, is a turn of its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return Turn, ()
