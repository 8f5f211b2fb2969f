"""The packages that only an export needs."""

from __future__ import annotations

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
