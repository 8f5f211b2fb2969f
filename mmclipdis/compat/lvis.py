"""The package ``lvis`` on today's NumPy, for mmdet's ``LVISMetric``."""

from __future__ import annotations

import importlib
import logging
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy

from mmclipdis.compat.optional import HAS_MMDET


class NumpyWithFloat(ModuleType):
    """NumPy as ``lvis`` 0.5.3 knows it: with ``float``, the name of Python's own type."""

    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)


def install_lvis() -> None:
    """Let ``lvis`` evaluate; does nothing without it, or without mmdet, which alone calls it.

    NumPy 1.24 took ``numpy.float`` away. Only ``lvis`` is shown a NumPy that has it. Its import
    also sets up the root logger, of which the handlers and the level are put back.
    """
    if not HAS_MMDET or find_spec("lvis") is None:
        return
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        module = importlib.import_module("lvis.eval")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    if not hasattr(module.np, "float"):
        vars(module)["np"] = NumpyWithFloat("numpy")
