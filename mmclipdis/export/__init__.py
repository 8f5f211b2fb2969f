"""A model with its words as one file for other programs: ONNX, or a program of ``torch.export``.

Nothing is imported before it is used, so that a command's help is there at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmclipdis.export.exporter import export
    from mmclipdis.export.metadata import load_metadata

__all__ = ["export", "load_metadata"]

_PLACES = {"export": "exporter", "load_metadata": "metadata"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
