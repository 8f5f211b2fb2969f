"""Text embeddings that were computed elsewhere, in place of a text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from mmclipdis.clip.files import read_file


def load_ready_embeddings(source: Tensor | str | Path) -> Tensor:
    """Ready embeddings (Q, E) float32 from a tensor, or a ``.pt``/``.safetensors`` file of one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unreadable file, or anything but one tensor with two axes.
    """
    content: Any = source
    where = "text embeddings"
    if not isinstance(source, Tensor):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"no file of text embeddings at {path}")
        where = f"text embeddings in {str(path)!r}"
        content, _ = read_file(path)
        if isinstance(content, dict) and len(content) == 1:
            content = next(iter(content.values()))
    if not isinstance(content, Tensor) or content.dim() != 2:
        raise ValueError(f"{where} must be one tensor of shape (queries, channels)")
    return content.detach().clone().float()
