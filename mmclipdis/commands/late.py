"""What mm imports at its start and no model of this package calls, imported when it is called.

mmseg imports most of SciPy for a loss, an assigner and a resizing; mmdet and pycocotools import
matplotlib for a picture of tracks and one of boxes; torchvision and timm import PyTorch's compiler
to ask whether there is one and to keep functions out of it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

#: Modules, with the functions and classes that are taken from them by name.
OF_MM = {
    "matplotlib": (),
    "matplotlib.collections": ("PatchCollection",),
    "matplotlib.patches": ("Polygon", "Rectangle"),
    "matplotlib.pyplot": (),
    "scipy.interpolate": (),
    "scipy.linalg": (),
    "scipy.ndimage": ("distance_transform_edt", "gaussian_filter"),
    "scipy.optimize": ("linear_sum_assignment",),
    "torch._dynamo": ("disable",),
    "torch._dynamo.utils": ("is_compile_supported",),
}
#: Decorators that only mark a function for a compiler, which is not used here: it stays as it is.
MARKS = {"torch._dynamo": ("disable",)}


class _Late(ModuleType):
    """Stands in sys.modules for a module that is not imported yet."""


@contextmanager
def late(modules: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Answer imports of these modules by stand-ins, as long as the context lasts.

    The functions of a stand-in import the module when they are called. Any other name is looked up
    in the module at once. What is imported already stays.

    Args:
        modules: Names of modules, each with the functions that are imported by name.
    """
    given = {name: _Late(name) for name in modules if name not in sys.modules}
    for name, module in given.items():
        _fill(module, modules[name])
        parent, _, child = name.rpartition(".")
        if parent in given:
            setattr(given[parent], child, module)
    sys.modules.update(given)
    try:
        yield
    finally:
        _drop(given.values())


def _drop(stand_ins: Iterable[ModuleType]) -> None:
    for module in stand_ins:
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]


def _fill(stand_in: ModuleType, functions: Sequence[str]) -> None:
    name = stand_in.__name__

    def real() -> ModuleType:
        _drop([module for module in [*sys.modules.values()] if isinstance(module, _Late)])
        return importlib.import_module(name)

    def get(attribute: str) -> Any:
        if attribute.startswith("__"):  # what the import system asks of any module
            raise AttributeError(attribute)
        return getattr(real(), attribute)

    def called_later(function: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(real(), function)(*args, **kwargs)

        call.__name__ = call.__qualname__ = function
        return call

    stand_in.__getattr__ = get  # type: ignore[method-assign]
    for function in functions:
        mark = function in MARKS.get(name, ())
        setattr(stand_in, function, _unmarked if mark else called_later(function))


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    return (lambda given: given) if function is None else function
