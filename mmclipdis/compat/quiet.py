"""mmengine's list of how each parameter was initialised, for log files only."""

from __future__ import annotations

import functools
import logging
from typing import Any


def install_quiet_initialisation() -> None:
    """Have ``init_weights()`` print nothing where no log file is open; safe to call again.

    A run writes the list into its log file. Without a run, as in Python and in tools, mmengine logs
    it to the terminal instead: a thousand lines for a segmentor.
    """
    from mmengine.logging import MMLogger
    from mmengine.model import BaseModule

    original = BaseModule._dump_init_info
    if getattr(original, "for_files_only", False):
        return

    @functools.wraps(original)
    def dump(self: Any) -> None:
        handlers = MMLogger.get_current_instance().handlers
        if any(isinstance(handler, logging.FileHandler) for handler in handlers):
            original(self)

    dump.for_files_only = True  # type: ignore[attr-defined]
    BaseModule._dump_init_info = dump
