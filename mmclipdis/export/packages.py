"""The packages that only an export needs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType


def needed(*names: str) -> ModuleType:
    """The first of some packages, all of which are there.

    Raises:
        ImportError: naming those that are not installed, and the extra that brings them.
    """
    missing = []
    for name in names:
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ImportError(
            f"this needs {', '.join(missing)}, not installed here; run: "
            "pip install 'mmclipdis[export]'"
        )
    return import_module(names[0])


@contextmanager
def quiet() -> Iterator[None]:
    """What the exporters say of their own insides, of every node that they pass over, is unsaid."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
