"""Whether weights were trained with QuickGELU: saved with them, checked when they are loaded.

Towers with GELU and with QuickGELU have weights of the same names and shapes, and in the other one
they give slightly wrong features. A mark beside the weights (entry ``quick_gelu``, 0 or 1) turns
that into an error. Weights without a mark are not checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from mmclipdis.clip.weights.marks import remember

#: Name of the mark: in a state dict, at the top of a ``.pt`` and in the header of a safetensors.
MARK = "quick_gelu"

#: Entries of OpenAI's archives that are not weights; only OpenAI's files have them.
_OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")


def remember_activation(module: nn.Module) -> None:
    """Save ``module.quick_gelu`` with the weights of ``module``; check it when they are loaded.

    See :func:`~mmclipdis.clip.weights.marks.remember`.

    Args:
        module: Has the attributes ``quick_gelu`` and ``arch``.

    Raises:
        ValueError: not here but when loading, if the weights were saved with the other activation.
    """
    remember(module, MARK, _encode, _check)


def find_quick_gelu(
    entries: Mapping[str, Any], metadata: Mapping[str, str], source: str
) -> bool | None:
    """Whether a checkpoint is marked as trained with QuickGELU; None if nothing says so.

    Args:
        entries: All entries of the state dict, and those beside it in the file.
        metadata: Header of a safetensors file.
        source: The file, for messages.

    Raises:
        ValueError: if its image and text tower are marked differently.
    """
    if MARK in metadata:
        return metadata[MARK].lower() == "true"
    if all(name in entries for name in _OPENAI_MARKS):
        return True
    marks = {bool(mark) for key, mark in entries.items() if key.rpartition(".")[2] == MARK}
    if len(marks) > 1:
        raise ValueError(
            f"{source!r} holds towers with GELU and with QuickGELU, which are of two CLIPs; "
            "export one of them"
        )
    return marks.pop() if marks else None


def check_activation(
    trained: bool | None, built: bool, arch: str | Mapping[str, Any], source: str
) -> None:
    """Refuse weights trained with one of GELU and QuickGELU in a tower built with the other.

    Args:
        trained: Whether they were trained with QuickGELU; None says nothing.
        built: Whether the tower has QuickGELU.
        arch: What the tower was built from.
        source: Where the weights are from, for the message.

    Raises:
        ValueError: naming both and the remedy.
    """
    if trained is None or trained == built:
        return
    names = ("QuickGELU", "GELU") if trained else ("GELU", "QuickGELU")
    if isinstance(arch, str):
        base = arch.removesuffix("-quickgelu")
        name, other = repr(arch), base + "-quickgelu" if trained else base
        exists = other != arch and open_clip.get_model_config(other) is not None
        right = f"use arch={other!r}" if exists else f"give weights trained with {names[1]}"
    else:
        name, right = "the given arch", f"set quick_gelu={trained} in the arch"
    raise ValueError(
        f"{source} was trained with {names[0]}, but {name} is built with {names[1]}: "
        f"its features would be wrong; {right}"
    )


def _encode(module: Any) -> Tensor:
    return torch.tensor(bool(module.quick_gelu), dtype=torch.uint8)


def _check(module: Any, mark: Tensor, source: str) -> None:
    check_activation(bool(mark), module.quick_gelu, module.arch, source)
