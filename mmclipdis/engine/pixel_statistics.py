"""A ``data_preprocessor`` and the towers behind it: the same mean and std, or no model.

What is taken off the pixels stands in one place of a config, and what the weights were trained with
is a matter of another; where they differ the model runs, and its numbers are wrong. Both meet when
a model is built, whoever builds it and of whatever library it is: torch tells of every module that
becomes part of another (:func:`watch_statistics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from mmclipdis.utils.statistics import CLIP, Statistics

#: Up to this, of pixels from 0 to 255, numbers are the same: configs round them. The means of CLIP
#: and ImageNet are 0.9 apart in red, their stds 10.
TOLERANCE = 0.5

_watching = False


class FollowsTower:
    """Mixin of a preprocessor whose mean and std are those of the first tower that it meets.

    Those that a config names stay. Without a tower they are CLIP's.
    """

    mean: Tensor
    std: Tensor
    _following: tuple[str, ...] = ()

    def or_clip(
        self, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> tuple[Sequence[float], Sequence[float]]:
        """The values that are given, of pixels from 0 to 255, and CLIP's until a tower comes."""
        given, own = {"mean": mean, "std": std}, CLIP.of_bytes
        self._following = tuple(name for name, values in given.items() if values is None)
        return own[0] if mean is None else mean, own[1] if std is None else std

    def follow(self, statistics: Statistics) -> None:
        """Take over what nobody has given; later towers have to fit."""
        for name, values in zip(("mean", "std"), statistics.of_bytes, strict=True):
            if name in self._following:
                own: Tensor = getattr(self, name)
                own.copy_(own.new_tensor(values).view_as(own))
        self._following = ()


def watch_statistics() -> None:
    """From now on, refuse models whose preprocessor contradicts a tower in them; done once.

    Towers ask for it when they are built, so that nothing is watched in a program without any.
    """
    global _watching
    if not _watching:
        register_module_module_registration_hook(_on_registration)
        _watching = True


def check_statistics(preprocessor: Any, part: nn.Module, name: str = "") -> None:
    """Compare what a preprocessor takes off with what the towers in ``part`` were trained with.

    A tower is a module with ``possible_statistics``, the likeliest first, of which ``statistics``
    is one; where several are possible, the preprocessor says which. A preprocessor that takes
    nothing off says nothing: the pipeline may have.

    Args:
        preprocessor: The ``data_preprocessor`` of a model.
        part: Of the model.
        name: Where in the model it is, for the message.

    Raises:
        ValueError: naming both, and the remedies.
    """
    for path, tower in part.named_modules(prefix=name):
        if getattr(tower, "possible_statistics", None):
            _compare(preprocessor, tower, path)


def given_statistics(preprocessor: Any) -> tuple[list[float], list[float]] | None:
    """Mean and std that a preprocessor takes off, of pixels from 0 to 255; None if it does not.

    Args:
        preprocessor: One of mmengine, mmseg, mmdet or this package, or one around such.
    """
    inner = getattr(preprocessor, "data_preprocessor", preprocessor)  # mmdet's of several branches
    mean, std = (_three(getattr(inner, name, None)) for name in ("mean", "std"))
    if mean is None or std is None or not getattr(inner, "_enable_normalize", True):
        return None
    return mean, std


def _three(values: Any) -> list[float] | None:
    """The numbers of a buffer, one a channel; None if it is none, or has no values."""
    if not isinstance(values, Tensor) or values.is_meta or values.numel() not in (1, 3):
        return None
    return torch.flatten(values).double().expand(3).tolist()  # type: ignore[no-any-return]


def _on_registration(model: nn.Module, name: str, part: nn.Module | None) -> None:
    """What torch calls before ``part`` becomes ``model.name``."""
    if part is None:
        return
    if name == "data_preprocessor":
        for path, child in model.named_children():
            if path != name and not _prepares_alone(child):
                check_statistics(part, child, path)
    elif model._modules.get("data_preprocessor") is not None and not _prepares_alone(part):
        check_statistics(model._modules["data_preprocessor"], part, name)


def _prepares_alone(part: nn.Module) -> bool:
    """Whether a part is a model that takes off values by itself, as in test-time augmentation."""
    return given_statistics(getattr(part, "data_preprocessor", None)) is not None


def _compare(preprocessor: Any, tower: Any, name: str) -> None:
    if isinstance(preprocessor, FollowsTower):
        preprocessor.follow(tower.statistics)
    given = given_statistics(preprocessor)
    if given is None:
        return
    fitting = [own for own in tower.possible_statistics if _fits(given, own)]
    if not fitting:
        raise ValueError(_contradiction(given, tower, name))
    if tower.statistics not in fitting:
        tower.statistics = fitting[0]


def _fits(given: tuple[list[float], list[float]], own: Statistics) -> bool:
    pairs = zip((*given[0], *given[1]), (*own.of_bytes[0], *own.of_bytes[1]), strict=True)
    return all(abs(value - wanted) <= TOLERANCE for value, wanted in pairs)


def _contradiction(given: tuple[list[float], list[float]], tower: Any, name: str) -> str:
    arch = repr(tower.arch) if isinstance(tower.arch, str) else "the given arch"
    mean, std = ([round(value / 255, 4) for value in values] for values in given)
    return (
        f"data_preprocessor has {_listed(given)}, but {arch} was trained with "
        f"{_listed(tower.statistics.of_bytes)}: set these in the data_preprocessor (of pixels from "
        f"0 to 255), or, if its weights were trained with the others, give {name} "
        f"({type(tower).__name__}) mean={mean}, std={std}"
    )


def _listed(pair: tuple[list[float], list[float]]) -> str:
    mean, std = ([round(value, 3) for value in values] for values in pair)
    return f"mean={mean}, std={std}"
