"""Text embeddings that were computed elsewhere, in place of a text encoder."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mmclipdis.clip.text.embeddings_file import read_embeddings


def load_ready_embeddings(source: Tensor | str | Path) -> Tensor:
    """Ready embeddings (Q, E) float32 from a tensor, or from a file, see :func:`read_embeddings`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unreadable file, or anything but one tensor with two axes.
    """
    if not isinstance(source, Tensor):
        return read_embeddings(source)
    if source.dim() != 2:
        raise ValueError("text embeddings must be one tensor of shape (queries, channels)")
    return source.detach().clone().float()
