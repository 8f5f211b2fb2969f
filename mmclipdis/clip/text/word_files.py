"""Vocabularies from files: a ``tokenizer.json``, or the ``.model`` of sentencepiece.

The packages that read them come with ``pip install 'mmclipdis[text]'`` and are imported when a file
is read.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Protocol


class WordFile(Protocol):
    """The vocabulary of a file."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, nothing around it."""

    def id_of(self, token: str) -> int | None:
        """Id of a token; None if there is none."""

    def size(self) -> int:
        """Number of tokens."""

    def beyond(self, table: int) -> int:
        """How many ordinary tokens have an id of ``table`` or more."""

    def frame(self) -> tuple[list[int], list[int], int | None]:
        """What the file itself puts before and behind a text, and its padding, if it says so."""


class JsonFile:
    """A ``tokenizer.json``, read by the package ``tokenizers`` alone."""

    def __init__(self, data: bytes, where: str) -> None:
        library = _library("tokenizers", where)
        try:
            self.tokenizer = library.Tokenizer.from_str(data.decode())
        except Exception as error:  # the package raises nothing narrower
            problem = " ".join(str(error).split())[:120]
            raise ValueError(f"{where} is no tokenizer.json: {problem}; give that file") from error
        padding = self.tokenizer.padding
        self._pad = None if padding is None else int(padding["pad_id"])
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """As :class:`WordFile`."""
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def id_of(self, token: str) -> int | None:
        """As :class:`WordFile`."""
        found: int | None = self.tokenizer.token_to_id(token)
        return found

    def size(self) -> int:
        """As :class:`WordFile`."""
        return int(self.tokenizer.get_vocab_size())

    def beyond(self, table: int) -> int:
        """As :class:`WordFile`; tokens that were added to a vocabulary are not ordinary."""
        if self.size() <= table:
            return 0
        added = {token.content for token in self.tokenizer.get_added_tokens_decoder().values()}
        words = self.tokenizer.get_vocab()
        return sum(i >= table and w not in added and not _is_extra(w) for w, i in words.items())

    def frame(self) -> tuple[list[int], list[int], int | None]:
        """As :class:`WordFile`: what the file's post-processor adds."""
        plain = self.tokenizer.encode("a", add_special_tokens=False).ids
        full = self.tokenizer.encode("a").ids
        start = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
        pad = self._pad
        for token in ("<pad>", "[PAD]"):
            pad = self.id_of(token) if pad is None else pad
        return full[:start], full[start + len(plain) :], pad


class SentencePieceFile:
    """A model file of sentencepiece, read by its package."""

    def __init__(self, data: bytes, where: str) -> None:
        library = _library("sentencepiece", where)
        try:
            self.processor = library.SentencePieceProcessor(model_proto=data)
        except Exception as error:  # RuntimeError, or another of the bindings
            raise ValueError(
                f"{where} is no model of sentencepiece; give tokenizer.json or such a model"
            ) from error

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """As :class:`WordFile`."""
        found: list[list[int]] = self.processor.encode(list(texts), out_type=int)
        return found

    def id_of(self, token: str) -> int | None:
        """As :class:`WordFile`."""
        found = int(self.processor.piece_to_id(token))  # that of unknown ones if there is none
        return found if self.processor.id_to_piece(found) == token else None

    def size(self) -> int:
        """As :class:`WordFile`."""
        return int(self.processor.get_piece_size())

    def beyond(self, table: int) -> int:
        """As :class:`WordFile`."""
        pieces = (self.processor.id_to_piece(i) for i in range(table, self.size()))
        return sum(not _is_extra(piece) for piece in pieces)

    def frame(self) -> tuple[list[int], list[int], int | None]:
        """As :class:`WordFile`: a model says nothing of it."""
        pad = int(self.processor.pad_id())
        return [], [], None if pad < 0 else pad


def _is_extra(token: str) -> bool:
    """Whether it is one of T5's hundred tokens for gaps, which no text has."""
    return "extra_id" in token


@lru_cache(maxsize=4)
def read_words(path: Path, changed: int, size: int) -> tuple[WordFile, str]:
    """Vocabulary and digest of a file, once for every state of it (Gemma's takes a second)."""
    data = path.read_bytes()
    where = f"tokenizer {str(path)!r}"
    kind = SentencePieceFile if path.suffix == ".model" else JsonFile
    return kind(data, where), hashlib.sha256(data).hexdigest()


def _library(name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{where} needs the package {name}, which is not installed; run: "
            "pip install 'mmclipdis[text]'"
        ) from error
