"""Tokenizers read from files: a ``tokenizer.json``, or the ``.model`` of sentencepiece.

A file gives the vocabulary and how words are cut. What stands around a text (start, end, padding)
is the family's: files of one family differ in it, and some are saved for other models (Gemma's own
starts a text with ``<bos>``, SigLIP 2 does not; a saved ``padding_side`` may be left, and a tower
that is pooled at the last place would read another token).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import get_clean_fn
from torch import Tensor

from mmclipdis.clip.text.tokenizers import Tokenizer, clip_tokenizer
from mmclipdis.clip.text.word_files import WordFile, read_words

#: Ways to clean a text before it is cut into tokens, as open_clip names them; each also mends
#: broken Unicode and HTML entities. ``canonicalize`` takes punctuation away: "fire-hydrant" becomes
#: "firehydrant".
CLEANS = ("lower", "canonicalize", "whitespace")

#: Options of ``tokenizer_kwargs`` that a tokenizer from a file has.
_FILE_OPTIONS = {"clean", "strip_sep_token"}
#: What a folder is searched for, in this order.
FILES = ("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.model")

#: A vocabulary may have this share of the token table, and no less (CLIPA: 30 522 of 32 000).
_FILLED = 0.9


@dataclass(frozen=True)
class Family:
    """What a family of models puts around a text, and how its vocabulary is recognised.

    Attributes:
        title: For messages.
        pad: Id that fills a row.
        prefix: Tokens before a text.
        suffix: Tokens behind it, which survive when a text is cut.
        ids: Where these special tokens stand in the vocabulary.
        file: Name of the official file.
    """

    title: str
    pad: int
    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    ids: Mapping[str, int] = field(default_factory=dict)
    file: str = "tokenizer.json"


_T5 = {"</s>": 1}
#: Part of ``hf_tokenizer_name`` -> family; the first that fits. Pads and ends: encoders spec 2.5.
FAMILIES: tuple[tuple[str, Family], ...] = (
    (
        "siglip2",
        Family("SigLIP 2's, of Gemma", 0, (), ("<eos>",), {"<pad>": 0, "<eos>": 1}),
    ),
    ("siglip-i18n", Family("SigLIP i18n's, sentencepiece of mC4", 1, (), ("</s>",), _T5)),
    ("siglip", Family("SigLIP's, sentencepiece of C4", 1, (), ("</s>",), _T5)),
    (
        "xlm-v",
        Family("XLM-V's", 1, ("<s>",), ("</s>",), {"<s>": 0, "<pad>": 1, "</s>": 2}),
    ),
    ("mt5", Family("mT5's", 0, (), ("</s>",), {"<pad>": 0, **_T5})),
    ("bert-base-uncased", Family("BERT's", 0, ("[CLS]",), ("[SEP]",), {"[PAD]": 0})),
    ("tips", Family("TIPS' own", 0, file="tokenizer.model")),
)


def family_of(name: str) -> Family | None:
    """The family of a ``hf_tokenizer_name``; None if it is not known."""
    return next((family for part, family in FAMILIES if part in name.lower()), None)


class FileTokenizer(Tokenizer):
    """A tokenizer from a file; see :class:`mmclipdis.clip.text.tokenizers.Tokenizer`.

    Args:
        words: Its vocabulary.
        pad: Id that fills a row, always on the right.
        prefix: Ids before a text.
        suffix: Ids behind it.
        clean: How a text is cleaned, as open_clip names it.
        strip_sep: Write 0 for the ids of ``suffix`` (open_clip's ``strip_sep_token``).
        digest: Of the bytes of the file.
    """

    def __init__(
        self,
        words: WordFile,
        pad: int,
        prefix: Sequence[int],
        suffix: Sequence[int],
        clean: str,
        strip_sep: bool = False,
        digest: str = "",
    ) -> None:
        self.words = words
        self.pad = pad
        self.prefix, self.suffix = list(prefix), list(suffix)
        self.clean = clean
        self.strip_sep = strip_sep
        self.digest = digest

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """Ids ``(N, context_length)``; what does not fit is cut, and ``suffix`` is kept."""
        clean = get_clean_fn(self.clean)
        room = max(0, context_length - len(self.prefix) - len(self.suffix))
        tokens = torch.full((len(texts), context_length), self.pad, dtype=torch.long)
        for row, ids in zip(tokens, self.words.encode([clean(text) for text in texts])):
            ids = [*self.prefix, *ids[:room], *self.suffix][:context_length]
            row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
        if self.strip_sep:
            for end in self.suffix:
                tokens[tokens == end] = 0
        return tokens

    def lengths(self, ids: Tensor) -> Tensor:
        """Up to the first end of text, or else to the last id that is no padding: ``(N,)``."""
        if self.suffix and not self.strip_sep:
            return (ids == self.suffix[-1]).int().argmax(1) + 1
        places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        last = (places * (ids != self.pad)).amax(1)
        return (last + len(self.suffix)).clamp(max=ids.shape[1])  # stripped ends look like padding

    def key(self) -> str:
        """Digest of the file, and what is put around a text and taken out of it."""
        options = [self.pad, self.prefix, self.suffix, self.clean, self.strip_sep]
        return json.dumps([self.digest, *options])


def build_tokenizer(
    text_cfg: Mapping[str, Any],
    context_length: int,
    arch: str,
    path: str | Path | None = None,
    clean: str | None = None,
) -> Tokenizer:
    """The tokenizer of a text tower.

    Args:
        text_cfg: ``text_cfg`` of the arch: ``hf_tokenizer_name``, ``tokenizer_kwargs`` and
            ``vocab_size`` are read.
        context_length: Tokens of a text, start and end included.
        arch: Its name, for messages.
        path: ``tokenizer.json`` or a sentencepiece ``.model`` of an arch with a tokenizer of its
            own, or the folder that holds it.
        clean: One of :data:`CLEANS`; None for that of the arch.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the package that reads it is missing.
        ValueError: a file for CLIP's own tokenizer, none for another, one of another family, or an
            unknown ``clean``.
    """
    if clean is not None and clean not in CLEANS:
        raise ValueError(f"clean={clean!r}: choose one of {', '.join(map(repr, CLEANS))}")
    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    if clean is not None:
        options["clean"] = clean
    name = text_cfg.get("hf_tokenizer_name")
    if not name:
        if path is not None:
            raise ValueError(
                f"tokenizer={str(path)!r}, but arch {arch} has CLIP's own tokenizer, which ships "
                "with open_clip: leave tokenizer out"
            )
        # of special tokens there is a list, which no cache can look up
        known = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return clip_tokenizer(context_length, **known)
    if path is None:
        family = family_of(name)
        title, file = (family.title, family.file) if family else ("its own", "tokenizer.json")
        raise ValueError(
            f"arch {arch} needs the tokenizer {name!r} ({title}), which is never downloaded or "
            f"guessed: give the text encoder tokenizer=PATH of the {file} that comes with the "
            "weights, or of the folder that holds it"
        )
    unread = {**options, "mode": text_cfg.get("tokenizer_mode")}
    other = sorted(k for k, v in unread.items() if k not in _FILE_OPTIONS and v)
    if other:
        raise ValueError(
            f"arch {arch} has a tokenizer with {', '.join(other)}, which is not supported; "
            f"supported are {', '.join(sorted(_FILE_OPTIONS))}"
        )
    return read_file_tokenizer(path, text_cfg, options.get("clean", "whitespace"), arch)


def read_file_tokenizer(
    path: str | Path, text_cfg: Mapping[str, Any], clean: str, arch: str
) -> FileTokenizer:
    """The tokenizer of a file, if it is the one that ``text_cfg`` expects.

    Args:
        path: The file, or a folder with one of :data:`FILES`.
        text_cfg: ``text_cfg`` of the arch.
        clean: How a text is cleaned.
        arch: Its name, for messages.

    Raises:
        FileNotFoundError, ImportError, ValueError: as
            :func:`build_tokenizer`.
    """
    file = _find(path)
    name, table = str(text_cfg["hf_tokenizer_name"]), int(text_cfg.get("vocab_size", 49408))
    state = file.stat()
    words, digest = read_words(file.resolve(), state.st_mtime_ns, state.st_size)
    family = family_of(name)
    _check_family(words, family, name, table, f"tokenizer {str(file)!r}", arch)
    if family is None:
        prefix, suffix, pad = words.frame()
        pad = int(text_cfg.get("pad_id", 0)) if pad is None else pad
    else:
        prefix, suffix = ([words.id_of(t) or 0 for t in s] for s in (family.prefix, family.suffix))
        pad = family.pad
    end = text_cfg.get("eos_id", 2)
    if text_cfg.get("pool_type") == "eos" and suffix[-1:] != [end]:
        raise ValueError(
            f"tokenizer {str(file)!r} ends a text with the ids {suffix}, but arch {arch} is "
            f"pooled at the id {end}; give the tokenizer of {name!r}, or its eos_id in the arch"
        )
    strip = bool((text_cfg.get("tokenizer_kwargs") or {}).get("strip_sep_token"))
    return FileTokenizer(words, pad, prefix, suffix, clean, strip, digest)


def _find(path: str | Path) -> Path:
    """The file of ``path``."""
    found = Path(path).expanduser()
    if found.is_dir():
        inside = [found / name for name in FILES if (found / name).is_file()]
        if not inside:
            raise FileNotFoundError(
                f"no tokenizer in the folder {str(path)!r}: none of {', '.join(FILES)} is there; "
                "give the folder of the model's files, or the file"
            )
        return inside[0]
    if not found.is_file():
        raise FileNotFoundError(
            f"no tokenizer at {str(path)!r}; give a tokenizer.json or the folder that holds it"
        )
    return found


def _check_family(
    words: WordFile, family: Family | None, name: str, table: int, where: str, arch: str
) -> None:
    """Refuse a vocabulary that cannot be the one of the token table."""
    problems = []
    expected = {} if family is None else dict(family.ids)
    around = () if family is None else (*family.prefix, *family.suffix)
    for token in (*expected, *around):
        found = words.id_of(token)
        if found is None:
            problems.append(f"it has no {token!r}")
        elif found != expected.get(token, found):
            problems.append(f"its {token!r} is {found}, not {expected[token]}")
    if words.beyond(table) or words.size() < _FILLED * table:
        problems.append(f"it has {words.size()} tokens, the text tower's table {table}")
    if problems:
        title = repr(name) if family is None else f"{name!r} ({family.title})"
        raise ValueError(
            f"{where} is of another family than arch {arch}: {'; '.join(dict.fromkeys(problems))}; "
            f"give that of {title}"
        )
