"""Functions of the standard library that mmengine calls and newer Pythons no longer have."""

from __future__ import annotations

import importlib.util
import pkgutil
from importlib.abc import Loader


def find_loader(fullname: str) -> Loader | None:
    """Return the loader of a module, or None when the module cannot be found.

    Python 3.14 removed ``pkgutil.find_loader``; mmengine 0.10 calls it to look for ``mmcv._ext``.
    """
    try:
        spec = importlib.util.find_spec(fullname)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ImportError(f"cannot look for {fullname!r}: {error}") from error
    return None if spec is None else spec.loader


def install_find_loader() -> None:
    """Give ``pkgutil`` its ``find_loader`` back where Python removed it."""
    if not hasattr(pkgutil, "find_loader"):
        pkgutil.find_loader = find_loader
