"""Tokenizers of a few words, written as files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

#: Encoders spec 7, SigLIP text 2.
WORDS = ("<pad>", "<eos>", "<bos>", "<unk>", "a", "photo", "of", "cat")


def write_tokenizer(
    path: Path,
    words: tuple[str, ...] = WORDS,
    template: str | None = "$A <eos>",
    unknown: str = "<unk>",
    added: tuple[str, ...] = (),
) -> Path:
    """A ``tokenizer.json`` of whole words; of the words in ``template`` each is a special token."""
    library: Any = importlib.import_module("tokenizers")
    ids = {word: i for i, word in enumerate(words)}
    tokenizer = library.Tokenizer(library.models.WordLevel(ids, unk_token=unknown))
    tokenizer.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([word for word in words if word[0] in "<["])
    tokenizer.add_special_tokens(list(added))
    if template is not None:
        special = [(word, ids[word]) for word in template.split() if word != "$A"]
        tokenizer.post_processor = library.processors.TemplateProcessing(
            single=template, special_tokens=special
        )
    tokenizer.save(str(path))
    return path
