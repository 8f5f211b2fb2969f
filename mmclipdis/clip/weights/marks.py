"""Marks: what weights were made for, saved beside them and checked when they are loaded.

Weights that fit by name and shape can still be wrong: trained for another readout, activation or
CLIP. A mark is an entry of the state dict that says so. :mod:`readout_mark`, :mod:`activation_mark`
and :mod:`arch_mark` define one each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

#: The mark of a module; None to save none.
Encode = Callable[[Any], Tensor | None]
#: Raises if a module cannot use weights of a mark; the string says where they are from.
Check = Callable[[Any, Tensor, str], None]


def remember(module: nn.Module, name: str, encode: Encode, check: Check) -> None:
    """Save a mark with the weights of ``module``, and check it when weights are loaded.

    ``state_dict()`` gets the entry ``name`` of what ``encode`` says at that time;
    ``load_state_dict()`` takes it out again. Works strictly or not, with torch's and mmengine's
    functions, and under DDP.

    Args:
        module: Whose weights.
        name: Entry of the state dict.
        encode: From the module to its mark.
        check: Compares the module with a mark, and raises.
    """
    # partials of functions of this module: a module with such hooks can be pickled and copied
    module.register_state_dict_post_hook(partial(_add, name, encode))  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(partial(_take, name, check))  # type: ignore[no-untyped-call]


def encode_text(text: str) -> Tensor:
    """A text as a uint8 tensor ``(n,)``, since a state dict holds tensors."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def decode_text(mark: Tensor) -> str:
    """The text of :func:`encode_text`, whatever type the tensor was cast to.

    Raises:
        ValueError: if it is none.
    """
    return bytes(mark.flatten().to(torch.uint8).tolist()).decode()


def _add(
    name: str, encode: Encode, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    mark = encode(module)
    if mark is not None:
        state_dict[prefix + name] = mark


def _take(
    name: str, check: Check, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    mark = state_dict.pop(prefix + name, None)
    if mark is not None:
        check(
            module, mark, f"the checkpoint of {prefix.removesuffix('.') or type(module).__name__}"
        )
