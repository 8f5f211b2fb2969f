"""Class names as people write them: lists, texts, class files, names with their synonyms."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: What stands between the names of a text, and nowhere in one.
_MARKS = (",", ";", "[", "]", "\n", "\r", "\t", "|", "，", "；", "、", "،", "؛")
#: Marks of other keyboards, and of tables, that do not part names here.
_OTHER_MARKS = _MARKS[6:]
#: Files of names that are no class files, and endings of some that may be.
_OTHER_FILES = (".json", ".yaml", ".yml", ".csv", ".tsv", ".py")
_CLASS_FILES = (".txt", ".names", ".lst", ".list")
#: What stands before or around the name in a line of a file of another kind.
_NUMBERED = re.compile(r"\d+\s*[:\t]")

#: What stands between the names of a text for mmdet's grounding models: 'kite . red apple'.
_DOT = re.compile(r"\s*\.\s+")
#: A name of more words than this may be a sentence.
_LONG_NAME = 3

_HOW = "write a list: ['sky', ['car', 'van']] is two classes, the second with two names"


def read_names(names: Any, separator: str | None = None) -> list[list[str]]:
    """Every class with its names (synonyms), first the one it is called by.

    Args:
        names: One of

            - a list of names, or of lists of synonyms;
            - a dict of names to their synonyms (a list, a text with commas, or None);
            - a ``Path``, or a text that is one: a class file (:func:`read_class_file`);
            - a text with line breaks: what a class file holds;
            - any other text: names with commas between them, synonyms in brackets:
              ``'sky, street, [car, van]'``.
        separator: Splits a string of a list, or a line, into synonyms; None keeps the strings of a
            list whole, and splits lines at commas.

    Raises:
        FileNotFoundError: no such class file.
        ValueError: what is none of these, or can be read in two ways.
    """
    if isinstance(names, Path) or (isinstance(names, str) and is_class_file(names)):
        return read_class_file(names, separator or ",")
    if isinstance(names, str):
        return _read_text(names, separator or ",")
    if isinstance(names, Mapping):
        return [_with_synonyms(name, synonyms) for name, synonyms in names.items()]
    if isinstance(names, (set, frozenset)):
        raise ValueError(f"names={names!r} is a set, which has no order: {_HOW}")
    if isinstance(names, (bytes, bytearray)) or not isinstance(names, Iterable):
        raise ValueError(f"names={names!r} are no class names: {_HOW}")
    return [_split(name, separator) for name in names]


def names_of_text(text: Any, custom_entities: bool = False) -> tuple[tuple[str, ...], ...]:
    """The classes that a text prompt asks for, each with its names, as mmdet's models read it.

    Names stand between points with a blank behind them (``'kite . red apple'``), whatever
    ``custom_entities`` says; a text without such points is read as :func:`read_names` reads it
    (``'kite, [apple, fruit]'``), and so is a list. Different from mmdet: without
    ``custom_entities`` it looks for noun phrases with a language model, which is not done here.
    A text that seems to be a sentence is one name, and a warning says so.

    Args:
        text: What a data sample has as ``text``.
        custom_entities: Whether the text is a list of names for sure.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_names`; a text without names.
    """
    if isinstance(text, str):
        content = text.strip().strip(". ")
        if not content:
            raise ValueError(f"text={text!r} names no classes: write 'kite . red apple'")
        parts = [part for part in _DOT.split(content) if part.strip()]
        if len(parts) == 1 and not custom_entities:
            _warn_of_sentence(parts[0])
        classes = read_names(parts[0] if len(parts) == 1 else parts)
    else:
        classes = read_names(text)
        if not classes:
            raise ValueError(f"text={text!r} names no classes: give ['kite', 'red apple']")
    return tuple(tuple(names) for names in classes)


def _warn_of_sentence(text: str) -> None:
    if not is_list_of_names(text) and not is_class_file(text) and len(text.split()) > _LONG_NAME:
        warnings.warn(
            f"text {_short(text)} is taken for one name: noun phrases are not looked for; write "
            "'kite . red apple', or say custom_entities=True",
            stacklevel=3,
        )


def is_list_of_names(text: str) -> bool:
    """Whether a text holds marks that stand between names, and thus is no name itself."""
    return any(mark in text.strip() for mark in _MARKS)


def is_class_file(text: str | Path) -> bool:
    """Whether a text is the path of a class file: it exists, ends in .txt, or names a folder."""
    path = Path(text).expanduser()
    try:
        if path.is_file():
            return True
    except (OSError, ValueError):  # a long text is no path
        return False
    one_line = not is_list_of_names(str(text))
    named = path.suffix.lower() in (*_CLASS_FILES, *_OTHER_FILES)
    return named or (one_line and len(path.parts) > 1)


def read_class_file(path: str | Path, separator: str | None = ",") -> list[list[str]]:
    """Synonyms of every class of a class file: line i is class i.

    Args:
        path: UTF-8 text. Blank lines at the end do not count.
        separator: Between synonyms; None: one name a line.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, not text, or has a blank line or an empty synonym in the middle
            (with the line number).
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"class file {str(path)!r} does not exist")
    where = f"class file {str(path)!r}"
    if path.suffix.lower() in _OTHER_FILES:
        raise ValueError(f"{where} is no text with a class a line; write one, or pass a list")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text: {error}") from error
    return _read_lines(text, separator, where)


def _read_lines(text: str, separator: str | None, where: str) -> list[list[str]]:
    lines = text.rstrip().split("\n")
    if lines == [""]:
        raise ValueError(f"{where} is empty: write one class a line")
    classes = []
    for number, line in enumerate(lines, start=1):
        synonyms = _split(line, separator)
        if not all(name.strip() for name in synonyms):
            what = "is blank" if not line.strip() else f"has an empty name: {line!r}"
            raise ValueError(
                f"{where}: line {number} {what}; every line must name a class, since line i is "
                "class i"
            )
        if line.lstrip().startswith("#") or _NUMBERED.match(line) or any(map(_quoted, synonyms)):
            raise ValueError(
                f"{where}: line {number} is {_short(line)}; write the name alone, without comment, "
                "number or quotes, since line i is class i"
            )
        if separator == "," and ";" in line:
            raise ValueError(
                f"{where}: line {number} has a semicolon: {_short(line)}; a line is one class, and "
                "commas stand between its names"
            )
        classes.append(synonyms)
    return classes


def _quoted(name: str) -> bool:
    name = name.strip()
    return len(name) > 1 and name[0] == name[-1] and name[0] in "'\"`"


def _read_text(text: str, separator: str) -> list[list[str]]:
    content = text.strip()
    if not content:
        raise ValueError("no class names in the text: give at least one class name")
    if len(content.splitlines()) > 1:
        return _read_lines("\n".join(content.splitlines()), separator, "the text of class names")
    if any(mark in content for mark in _OTHER_MARKS):
        mark = next(mark for mark in _OTHER_MARKS if mark in content)
        raise ValueError(
            f"{_short(text)} has {mark!r}: put commas (',') between classes, or {_HOW}"
        )
    if content[0] + content[-1] in ("()", "{}", "<>"):
        raise ValueError(f"{_short(text)} has brackets around all names: {_HOW}")
    if ";" in content:
        raise ValueError(f"{_short(text)} has semicolons: put commas between classes, or {_HOW}")
    parts = [part.strip() for part in _outside_brackets(text)]
    if not parts[-1]:  # a comma at the end
        parts.pop()
    if len(parts) == 1 and parts[0].startswith("["):
        raise ValueError(f"{_short(text)} may be one class or several: {_HOW}")
    classes: list[list[str]] = []
    for part in parts:
        bracketed = part[1:-1] if part.startswith("[") else None
        names = [part] if bracketed is None else [name.strip() for name in bracketed.split(",")]
        if not all(names):
            raise ValueError(f"class {len(classes)} has an empty name: {_short(text)}")
        if any(map(_quoted, names)):
            raise ValueError(f"{_short(text)} has a name in quotes ({part!r}): {_HOW}")
        classes.append(names)
    return classes


def _outside_brackets(text: str) -> list[str]:
    """The parts between commas, those inside brackets aside."""
    parts, depth = [""], 0
    for mark in text:
        depth += {"[": 1, "]": -1}.get(mark, 0)
        behind_a_name = mark == "[" and parts[-1].strip() != ""
        behind_brackets = mark not in " ,]" and parts[-1].rstrip().endswith("]")
        if depth not in (0, 1) or behind_a_name or behind_brackets:
            break
        if mark == "," and not depth:
            parts.append("")
        else:
            parts[-1] += mark
    else:
        if not depth:
            return parts
    raise ValueError(f"{_short(text)} has brackets that enclose no synonyms of one class: {_HOW}")


def _with_synonyms(name: Any, synonyms: Any) -> list[str]:
    more = [] if synonyms is None else synonyms
    more = [other.strip() for other in more.split(",")] if isinstance(more, str) else more
    if isinstance(more, (Mapping, set, frozenset, bytes)) or not isinstance(more, Iterable):
        raise ValueError(f"{name!r}: {synonyms!r} are no synonyms; expected a name or a list")
    return [name, *(other for other in more if other != name)]


def _split(name: str | Sequence[str], separator: str | None) -> list[str]:
    if isinstance(name, str):
        return name.split(separator) if separator else [name]
    if not isinstance(name, Sequence) or isinstance(name, (bytes, bytearray)):
        raise ValueError(f"{name!r} is no class name; expected a string or a list of synonyms")
    return list(name)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
