"""Text embeddings that were computed elsewhere, in place of a text encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def read_embeddings(source: Tensor | str | Path) -> Tensor:
    """Ready embeddings (Q, E) float32 from a tensor, or a ``.pt``/``.safetensors`` file of one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: anything but one tensor with two axes.
    """
    if not isinstance(source, Tensor):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"no file of text embeddings at {path}")
        if path.suffix == ".safetensors":
            tensors = list(load_file(str(path)).values())
            source = tensors[0] if len(tensors) == 1 else torch.empty(0)
        else:
            source = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(source, Tensor) or source.dim() != 2:
        raise ValueError("text embeddings must be one tensor of shape (queries, channels)")
    return source.detach().clone().float()
