"""Frozen parts of a model that its checkpoints leave out: their weights come from elsewhere."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from torch import Tensor, nn

from mmclipdis.engine.random_weights import LEFT_OUT, note_left_out


class SharesUnsaved:
    """Mixin of a module whose copies share the weights of the parts that its checkpoints leave out.

    They are frozen, and no state dict brings them to a copy. ``EMAHook`` copies a model before
    weights are loaded, and exchanges the parameters of both in evaluation.
    """

    #: Names of the parts; :func:`leave_out_of_checkpoints` writes them.
    left_out: tuple[str, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        for name in self.left_out:
            part = getattr(self, name)
            if part is not None:
                memo.update((id(value), value) for value in (*part.parameters(), *part.buffers()))
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


def leave_out_of_checkpoints(module: Any, parts: tuple[str, ...]) -> None:
    """Keep these children out of the state dict, and do not ask for them on loading.

    Args:
        module: The model, which ``SharesUnsaved``.
        parts: Names of attributes; a child that is None is passed over.
    """
    module.left_out = parts
    for part in parts:
        child = getattr(module, part)
        if child is not None:
            note_left_out(child, f"{part} of {type(module).__name__}")
    # partials of functions of this module: a model with such hooks can be pickled and copied
    module._register_state_dict_hook(partial(_drop, parts))
    module.register_load_state_dict_pre_hook(partial(_keep, parts))


def _drop(
    parts: tuple[str, ...], own: nn.Module, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    starts = tuple(f"{prefix}{part}." for part in parts)
    for key in [key for key in state if key.startswith(starts)]:
        del state[key]


def _keep(
    parts: tuple[str, ...], own: nn.Module, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    # What the module holds, so that strict loading misses nothing and changes nothing.
    for part in parts:
        child = getattr(own, part)
        for name, value in child.state_dict().items() if child is not None else ():
            setattr(value, LEFT_OUT, True)  # nothing has come
            state[f"{prefix}{part}.{name}"] = value
