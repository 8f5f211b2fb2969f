"""Which tests start processes or run a training or testing loop: told by what they refer to."""

from __future__ import annotations

import subprocess
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch.multiprocessing
from mmengine.runner import Runner

from mmclipdis.apis import run as tools
from tests import processes

#: What a slow test finds among its module's names: it starts a process or a tool.
STARTERS = (
    *(subprocess, torch.multiprocessing, processes.run_code, processes.run_script),
    *(tools.train, tools.test),
)
#: The same as attributes, as in ``torch.multiprocessing.spawn``.
START_NAMES = {"multiprocessing", "run_ranks", "spawn", "start_processes"}
#: What these have as methods or functions runs over data.
RUNNERS = (Runner, tools)
LOOPS = {"test", "train", "val"}


def is_slow(item: pytest.Item) -> bool:
    """Look through a test, its fixtures, and the functions of tests that these refer to."""
    if not isinstance(item, pytest.Function):
        return False
    definitions = item._fixtureinfo.name2fixturedefs
    fixtures = [d.func for name in item.fixturenames for d in definitions.get(name, ())]
    objects: list[object] = []
    attributes: set[str] = set()
    for function, names in _reached([item.function, *fixtures]):
        objects += [function.__globals__[name] for name in names if name in function.__globals__]
        attributes |= names
    if attributes & START_NAMES or any(o is s for o in objects for s in STARTERS):
        return True
    return bool(attributes & LOOPS) and any(o is r for o in objects for r in RUNNERS)


def _reached(functions: list[Callable[..., Any]]) -> Iterator[tuple[types.FunctionType, set[str]]]:
    """Functions in ``tests`` that are called from these, and these, with the names they use."""
    waiting, seen = list(functions), set()
    while waiting:
        function = waiting.pop()
        if not isinstance(function, types.FunctionType) or function in seen:
            continue
        if not function.__module__.startswith("tests.") or function.__module__ == "tests.conftest":
            continue
        seen.add(function)
        names = _names(function.__code__)
        yield function, names
        waiting += [function.__globals__.get(name) for name in names]


def _names(code: types.CodeType) -> set[str]:
    """Names that code uses, with that of the functions inside it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*(_names(part) for part in inner))
