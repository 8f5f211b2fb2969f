"""mmclipdis: an OpenMMLab plugin that makes CLIP see several objects at once.

Importing the package registers its modules; in a config that is one line::

    custom_imports = dict(imports=['mmclipdis'], allow_failed_imports=False)

In Python photos and words are enough (:mod:`mmclipdis.apis`)::

    from mmclipdis import segment, detect, tag
    result = detect('street.jpg', ['car', 'bicycle'])
"""

from __future__ import annotations

import gc
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmclipdis.version import __version__

if TYPE_CHECKING:
    from mmclipdis import datasets, engine, evaluation, models, visualization
    from mmclipdis.apis import detect, segment, tag
    from mmclipdis.apis.zoo import ModelInfo

__all__ = [
    "__version__",
    "datasets",
    "detect",
    "engine",
    "evaluation",
    "models",
    "register",
    "segment",
    "tag",
    "visualization",
]

#: Functions that are imported when they are asked for, with what they need.
_LAZY = ("detect", "segment", "tag")


class _Models(ModuleType):
    """``mmclipdis.models``: the package of models, which lists what there is when it is called."""

    def __call__(self, task: str | None = None) -> list[ModelInfo]:
        """The models that have a name; see :func:`mmclipdis.apis.zoo.models`."""
        from mmclipdis.apis.zoo import models

        return models(task)


def register() -> None:
    """Fit the mm stack to this PyTorch and register all modules; safe to call again.

    ``import mmclipdis`` does it, other than in the command ``mmclipdis``, whose subcommands do it
    when they need it: ``mmclipdis --help`` imports no torch.

    Raises:
        IncompatibleEnvironmentError: packages are missing or do not fit together.
    """
    from mmclipdis import compat

    # Imports make a million objects that stay: looking for garbage among them takes a while.
    collecting = gc.isenabled()
    gc.disable()
    try:
        compat.install()
        # compat must come first
        from mmclipdis import datasets, engine, evaluation, models, visualization  # noqa: F401
    finally:
        if collecting:
            gc.enable()

    # One name for two things: `import mmclipdis.models` must give the package, as ever, and
    # `mmclipdis.models()` reads as what it does. A module is called if its class says how.
    package: Any = models
    package.__class__ = _Models


def _is_command() -> bool:
    """Whether this process is the command ``mmclipdis``, which registers later.

    The console script says so (``mmclipdis_command.py``). For ``python -m mmclipdis`` Python
    imports this file while it looks for the module, and ``sys.argv`` begins with that option.
    """
    if getattr(sys.modules.get("mmclipdis_command"), "running", False):
        return True
    words = getattr(sys, "argv", None) or [""]
    if words[0] != "-m":
        return False
    return sys.orig_argv[-len(words)].removeprefix("-m") in ("mmclipdis", "mmclipdis.doctor")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmclipdis import apis

    return getattr(apis, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


if not _is_command():
    register()
