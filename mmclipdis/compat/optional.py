"""mmseg and mmdet are optional: without them what stands on them is absent, and says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NoReturn

from mmclipdis.compat.environment import IncompatibleEnvironmentError
from mmclipdis.compat.rows import install_command

HAS_MMSEG = find_spec("mmseg") is not None
MMSEG_REMEDY = f"needs mmsegmentation, which is not installed; run: {install_command(['mmseg'])}"
HAS_MMDET = find_spec("mmdet") is not None
MMDET_REMEDY = f"needs mmdetection, which is not installed; run: {install_command(['mmdet'])}"


def absent(
    module: str, names: Sequence[str], detection: Sequence[str] = ()
) -> Callable[[str], NoReturn]:
    """``__getattr__`` of a package that lacks ``names`` because mmseg is not installed.

    Those in ``detection`` it lacks because mmdet is not.
    """

    def __getattr__(name: str) -> NoReturn:
        if name in detection:
            raise IncompatibleEnvironmentError(f"{module}.{name} {MMDET_REMEDY}.")
        if name in names:
            raise IncompatibleEnvironmentError(f"{module}.{name} {MMSEG_REMEDY}.")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
