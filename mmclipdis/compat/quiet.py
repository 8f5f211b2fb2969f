"""What libraries print that nobody asked for: mmengine's list of parameters, a fork's greeting."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import warnings
from importlib.util import find_spec
from typing import Any

from mmclipdis.compat.rows import FORK, installed


def import_fork_quietly() -> None:
    """Import the fork's mmseg and mmdet without what they print; does nothing without the fork.

    They say on stdout, in the midst of what a tool prints, that a package of their makers is
    missing, and warn of another that one of mmdet's metrics needs. All else comes through.
    """
    for module in installed_modules():
        with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "faster_coco_eval is not installed")
            importlib.import_module(f"{module}.datasets")
            importlib.import_module(f"{module}.evaluation")
        for line in printed.getvalue().splitlines():
            if "Could not import OneDL" not in line:
                print(line)


def installed_modules() -> list[str]:
    """Which of ``mmseg`` and ``mmdet`` are installed from the fork."""
    found = [name for name in ("mmseg", "mmdet") if installed({name: FORK[name]})]
    return [name for name in found if find_spec(name) is not None]


def install_quiet_initialisation() -> None:
    """Have ``init_weights()`` print nothing where no log file is open; safe to call again.

    A run writes the list into its log file. Without a run, as in Python and in tools, mmengine logs
    it to the terminal instead: a thousand lines for a segmentor. Into the log file of a run that is
    over, which somebody has closed, it cannot write, and fails.
    """
    from mmengine.logging import MMLogger
    from mmengine.model import BaseModule

    original = BaseModule._dump_init_info
    if getattr(original, "for_files_only", False):
        return

    @functools.wraps(original)
    def dump(self: Any) -> None:
        handlers = MMLogger.get_current_instance().handlers
        files = [handler for handler in handlers if isinstance(handler, logging.FileHandler)]
        if files and all(file.stream is not None for file in files):
            original(self)

    dump.for_files_only = True  # type: ignore[attr-defined]
    BaseModule._dump_init_info = dump
