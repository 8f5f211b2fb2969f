"""How texts become token ids: CLIP's BPE, which ships with open_clip, and tokenizers from files.

A tokenizer belongs to the weights: with another one every text is read as other words and nothing
fails. So none is ever guessed or downloaded. An arch that names a tokenizer needs its file
(:mod:`mmclipdis.clip.text.tokenizer_files`), which is compared with what the arch expects.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from open_clip import tokenizer as open_clip_tokenizers
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor


class Tokenizer(ABC):
    """Texts to ids, padded on the right. It never changes, and copies of a tower share it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        return self  # a copy of Gemma's or XLM-V's table would take a second and its memory

    @abstractmethod
    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """Ids ``(N, context_length)`` int64; what does not fit is cut, the end of text is kept."""

    @abstractmethod
    def lengths(self, ids: Tensor) -> Tensor:
        """How many ids of every row ``(N, L)`` are of its text, start and end included."""

    @abstractmethod
    def key(self) -> str:
        """What tells it apart from every other; ``''`` if the ids of CLIP's own say it all."""


class ClipTokenizer(Tokenizer):
    """open_clip's BPE with the vocabulary of CLIP.

    Args:
        tokenizer: It.
    """

    def __init__(self, tokenizer: SimpleTokenizer) -> None:
        self.bpe = tokenizer

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text, the largest of all."""
        return int(self.bpe.eot_token_id)

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """As :class:`Tokenizer`, padded with zeros."""
        return self.bpe(list(texts), context_length=context_length)  # type: ignore[no-any-return]

    def lengths(self, ids: Tensor) -> Tensor:
        """As :class:`Tokenizer`: up to the first end of text."""
        return (ids == self.eot_token_id).int().argmax(1) + 1

    def key(self) -> str:
        """Nothing: its ids tell its options."""
        return ""


@lru_cache(maxsize=8)
def clip_tokenizer(context_length: int, **options: Any) -> ClipTokenizer:
    """CLIP's tokenizer; the same object for the same arguments, since its table takes long to read.

    Args:
        context_length: Tokens of a text, start and end included.
        options: Those of ``open_clip.tokenizer.SimpleTokenizer``, such as ``clean``.
    """
    read = getattr(open_clip_tokenizers, "_tokenizer", None)
    if read is None or options:
        return ClipTokenizer(SimpleTokenizer(context_length=context_length, **options))
    tokenizer = copy.copy(read)  # with the table that open_clip read when it was imported
    tokenizer.context_length = context_length
    return ClipTokenizer(tokenizer)
