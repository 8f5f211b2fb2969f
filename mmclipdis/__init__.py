"""mmclipdis: an OpenMMLab plugin that makes CLIP see several objects at once.

Importing the package registers its modules; in a config that is one line::

    custom_imports = dict(imports=['mmclipdis'], allow_failed_imports=False)
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
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


class _Models(ModuleType):
    """The package ``mmclipdis.models``, which called lists the models of the zoo."""

    def __call__(self, task: str | None = None) -> list[Any]:
        """The models that take photos and words; see :func:`mmclipdis.apis.zoo.models`."""
        from mmclipdis.apis.zoo import models as listed

        return listed(task)


__all__ = ["__version__"]

if not _doctor_is_asked():
    from mmclipdis import compat as _compat

    _compat.install()

    # compat must come first
    from mmclipdis import datasets, engine, evaluation, models, visualization

    models.__class__ = _Models
    __all__ += ["datasets", "engine", "evaluation", "models", "visualization"]
