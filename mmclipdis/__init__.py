"""mmclipdis: an OpenMMLab plugin that makes CLIP see several objects at once.

Importing the package registers its modules; in a config that is one line::

    custom_imports = dict(imports=['mmclipdis'], allow_failed_imports=False)

And it has the three functions for photos and words, :func:`mmclipdis.segment`, ``detect``, ``tag``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from mmclipdis.version import __version__


def _doctor_is_asked() -> bool:
    """Whether this process is ``mmclipdis doctor`` or ``python -m mmclipdis.doctor``.

    Python imports this file first for both, and the doctor must speak where it cannot be imported.
    While Python looks for the module of ``-m``, ``sys.argv`` begins with that option.
    """
    words = getattr(sys, "argv", None) or [""]
    if words[0] == "-m":
        return sys.orig_argv[-len(words)].endswith("mmclipdis.doctor")
    command = os.path.splitext(os.path.basename(words[0]))[0]
    return command == "mmclipdis" and words[1:2] == ["doctor"]


__all__ = ["__version__"]

if not _doctor_is_asked():
    from mmclipdis import compat as _compat

    _compat.install()

    # compat must come first
    from mmclipdis import datasets, engine, evaluation, models, visualization

    __all__ += ["datasets", "engine", "evaluation", "models", "visualization"]


def __getattr__(name: str) -> Any:
    """``segment``, ``detect`` and ``tag`` of :mod:`mmclipdis.apis`, imported when first used."""
    if name not in ("detect", "segment", "tag"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmclipdis import apis

    return getattr(apis, name)
