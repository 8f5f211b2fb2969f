"""Values of a config that are not of the type that one of our classes asks for.

A text where a truth value is meant is true, and one where a weight is meant ends in a traceback of
the first iteration: both are said before anything is built, for each class by its annotations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from numbers import Real
from typing import Any

from mmengine import registry
from mmengine.config import Config

from mmclipdis.apis.config_check import UserInputError

_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "bool": ("True or False", lambda value: isinstance(value, (bool, int)) and value in (0, 1)),
    "int": ("a whole number", lambda value: _is_number(value) and value % 1 == 0),
    "float": ("a number", lambda value: _is_number(value) and value == value),
    "str": ("a text", lambda value: isinstance(value, str)),
    "None": ("None", lambda value: value is None),
}
#: Numbers in the train_cfg and test_cfg of mmdet's heads, which are compared with tensors.
_OF_DETECTORS = {"score_thr", "iou_threshold", "max_per_img", "nms_pre"}


def check_plain_values(settings: Any, where: str = "") -> None:
    """Check each value for a parameter that is annotated by plain types alone.

    Args:
        settings: A config or a part of it; dicts with a ``type`` of this package are looked at.
        where: Name of the part, for the message.

    Raises:
        UserInputError: naming the setting, the class, and what it takes.
    """
    if isinstance(settings, (Config, Mapping)):
        ours = _our_class(settings.get("type"))
        for key, value in settings.items():
            name = f"{where}.{key}" if where else str(key)
            kinds = _plain_kinds(ours, key) if ours else ()
            if key in _OF_DETECTORS and where.startswith("model") and not _is_number(value):
                raise UserInputError(f"{name} must be a number, got {value!r}.")
            if kinds and not any(_KINDS[kind][1](value) for kind in kinds):
                expected = " or ".join(_KINDS[kind][0] for kind in kinds)
                raise UserInputError(
                    f"{name} must be {expected}, got {value!r} ({ours.__name__})."  # type: ignore[union-attr]
                )
            check_plain_values(value, name)
    elif isinstance(settings, (list, tuple)):
        for i, part in enumerate(settings):
            check_plain_values(part, f"{where}.{i}")


@cache
def _plain_kinds(kind: type, parameter: str) -> tuple[str, ...]:
    """The plain types that a parameter takes; none where it also takes others."""
    for base in kind.__mro__:
        if not base.__module__.startswith("mmclipdis."):
            continue
        found = inspect.signature(base.__init__).parameters.get(parameter)  # type: ignore[misc]
        if found is not None:
            kinds = tuple(part.strip() for part in str(found.annotation).split("|"))
            return kinds if set(kinds) <= set(_KINDS) else ()
    return ()


def _our_class(kind: Any) -> type | None:
    found = [kind]
    if isinstance(kind, str):
        name = kind.split(".")[-1]
        found = [one.module_dict[name] for one in _registries() if name in one.module_dict]
    # a name that others have, too, may mean theirs
    ours = [isinstance(k, type) and k.__module__.startswith("mmclipdis.") for k in found]
    return found[0] if ours and all(ours) else None


def _registries() -> Iterator[registry.Registry]:
    """All registries: mmengine's, and those that other packages hang below them."""
    waiting = [one for one in vars(registry).values() if isinstance(one, registry.Registry)]
    while waiting:
        one = waiting.pop()
        yield one
        waiting.extend(one.children.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
