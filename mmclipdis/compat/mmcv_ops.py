"""``mmcv._ext`` for an mmcv without compiled ops (mmcv-lite).

The module is offered through ``sys.meta_path`` behind every other finder, so that a compiled
``mmcv._ext`` always wins. It has a real ``ModuleSpec``, because mmengine asks
``pkgutil.find_loader('mmcv._ext')``. Every op can be imported; those listed in ``OPS`` work, the
others raise an error that names the op when they are called.

``mmclipdis.pth`` offers the same before the package is imported; this file and ``ops.py`` are then
read on their own and must not import the package.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

MODULE_NAME = "mmcv._ext"


def lite() -> str:
    """Name and version of the mmcv that has no compiled ops."""
    from mmclipdis.compat.rows import installed, installed_row

    package = {"mmcv": installed_row()["mmcv"]}
    name, version = next(iter(installed(package).items()), ("mmcv", ""))
    return f"{name} {version}".strip()


def compile_command() -> str:
    """The commands that put an mmcv with compiled ops in its place."""
    from mmclipdis.compat.rows import installed_row

    package = installed_row()["mmcv"]
    names, full = package.distributions, package.distributions[-1]
    fresh = " --no-cache-dir" if len(names) == 1 else ""  # pip keeps the wheel without ops
    return (
        f"pip uninstall -y {' '.join(names)} && pip install --no-build-isolation{fresh} "
        f"'{full}=={package.exact}'"
    )


class MissingOpError(RuntimeError):
    """An mmcv op was called that exists only in the compiled mmcv."""


class StandInModule(ModuleType):
    """A module that has every op name; unknown ones raise when called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise MissingOpError(
                f"the op {name!r} is only in an mmcv with compiled ops, and {lite()} has none; "
                f"run: {compile_command()} (needs a C++ compiler and 10 to 15 minutes)."
            )

        missing.__name__ = missing.__qualname__ = name
        return missing


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads ``mmcv._ext`` when no other finder knows it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the stand-in for ``mmcv._ext`` and None for every other name."""
        if fullname != MODULE_NAME:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin="mmclipdis.compat.mmcv_ops")

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return the empty stand-in."""
        return StandInModule(spec.name, doc="mmcv ops on torchvision.")

    def exec_module(self, module: ModuleType) -> None:
        """Fill in the ops that work; imported here because they need torch and torchvision."""
        for name, function in _ops().OPS.items():
            setattr(module, name, function)


def _ops() -> ModuleType:
    """``mmclipdis.compat.ops``, on its own as long as nobody has imported the package.

    The package imports mmseg and mmdet, which may be waiting for this very module.
    """
    name = "mmclipdis.compat.ops"
    if "mmclipdis" in sys.modules:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("ops.py"))
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} cannot be read")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def install_mmcv_ops() -> None:
    """Offer the stand-in; does nothing when it is offered already."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())


def uses_stand_in() -> bool:
    """Whether the ops of mmcv come from the stand-in."""
    import mmcv._ext

    return isinstance(mmcv._ext, StandInModule)
