"""Photos and labels that a data set lists: which are not there, and which lie there unread."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

#: Endings of pictures, in any case.
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".avif")
#: In folders with at least so many listed files all names are read at once.
_MANY = 32


def read_split(path: str | Path) -> list[tuple[int, str]]:
    """Line number and name of every photo that a text file lists, one a line.

    Lists are read as Windows and spreadsheets write them, too: with a byte order mark, ``\\r\\n``,
    blanks around names, empty lines, backslashes between folders.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no UTF-8 text, or a line has more than one column.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no UTF-8 text ({error.reason}); save the list as plain text in UTF-8, one "
            "name a line"
        ) from error
    lines = enumerate(text.splitlines(), start=1)
    named = [(number, line.strip()) for number, line in lines if line.strip()]
    for number, name in named:
        if any(mark in name for mark in "\t,;\0"):
            raise ValueError(
                f"{path}, line {number}: {name[:60]!r} has more than one column; the list takes "
                "one name a line, without header"
            )
    return [(number, name.replace("\\", "/").removeprefix("./")) for number, name in named]


def stock_split_problem(path: str | Path) -> str:
    """What makes mmseg's own reader take other names than the list means; ``''`` if nothing does.

    Raises:
        ValueError: As :func:`read_split`.
    """
    read_split(path)
    text = Path(path).read_bytes().decode("utf-8")
    lines = text.splitlines()
    if text.startswith("\ufeff"):
        return f"{path} begins with a byte order mark, as Windows writes it; save it without"
    blank = [number for number, line in enumerate(lines, start=1) if not line.strip()]
    if blank:
        return f"{path}: line {blank[0]} is empty ({len(blank)} of {len(lines)}); remove it"
    for number, line in enumerate(lines, start=1):
        if "\\" in line:
            return f"{path}, line {number}: {line.strip()!r} has backslashes; write / instead"
    return ""


def missing_places(paths: Sequence[str]) -> list[int]:
    """Places in ``paths`` of files that are not there. Reads each folder once, not each file."""
    folders = Counter(os.path.dirname(path) for path in paths)
    there: dict[str, set[str] | None] = {}
    for folder, number in folders.items():
        if number >= _MANY:
            try:
                with os.scandir(folder or ".") as entries:
                    there[folder] = {entry.name for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                there[folder] = set()
    missing = []
    for place, path in enumerate(paths):
        folder, name = os.path.split(path)
        names = there.get(folder)
        if not (os.path.isfile(path) if names is None else name in names):
            missing.append(place)
    return missing


def missing_message(
    owner: str,
    what: str,
    paths: Sequence[str],
    places: Sequence[int],
    *,
    source: str = "",
    suffix: str = "",
    remedy: str = "",
    columns: bool = False,
) -> str:
    """The error about files that are not there: how many, which first, where listed, what to do.

    Args:
        owner: Name of the data set.
        what: ``photos`` or ``label maps``.
        paths: All files of that kind.
        places: Those that are not there, as :func:`missing_places` says.
        source: File that lists them, ``''`` if none does.
        suffix: That the data set puts behind each name.
        remedy: What to set.
        columns: The list has more than names, and no lines are told.
    """
    first = paths[places[0]]
    listed, names = "", []
    if source.endswith(".txt") or (source and not source.endswith(".json")):
        named = [] if columns else read_split(source)
        bare = first.removesuffix(suffix)
        names = [(number, name) for number, name in named if bare.endswith(f"/{name}")]
        listed = f", line {names[0][0]} of {source}" if names else f", in {source}"
    elif source:
        listed = f", in {source}"
    hint = _missing_ending(first, source) if source and not suffix else ""
    hint = hint or _hint(first, suffix, len(places) == 1 and bool(names) and names[0][0] == 1)
    return (
        f"{owner}: {len(places):,} of {len(paths):,} {what} are not there; the first is {first!r}"
        f"{listed}; {hint or remedy}"
    )


def _hint(path: str, suffix: str, first_line: bool) -> str:
    """What is probably wrong, from what lies beside the missing file."""
    bare = path.removesuffix(suffix) if suffix else os.path.splitext(path)[0]
    if suffix and os.path.isfile(bare):
        return f"the list has names with their endings, and {suffix!r} is put behind; leave it out"
    folder, name = os.path.split(bare)
    if suffix and os.path.isdir(folder):
        with os.scandir(folder) as entries:
            beside = [e.name for e in entries if e.name.startswith(f"{name}.")]
        if beside:
            return f"there is {sorted(beside)[0]!r}: is the suffix {suffix!r} right?"
    return "if the first line is a header, remove it" if first_line else ""


def _missing_ending(path: str, source: str) -> str:
    """What to set where a list has names without ending, and the file beside has one."""
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        return ""
    with os.scandir(folder) as entries:
        beside = sorted(e.name for e in entries if e.name.startswith(f"{name}."))
    if not beside:
        return ""
    if source.endswith(".json"):
        return f"there is {beside[0]!r}: give the names of the list their endings"
    ending = beside[0].removeprefix(name)
    return f"there is {beside[0]!r}: set img_suffix={ending!r}, the ending of the photos"


def unread_pictures(folder: str, suffix: str, read: Collection[str]) -> str:
    """How many pictures below a folder are not read since they end otherwise; ``''`` if none.

    Args:
        folder: That a data set takes all photos of.
        suffix: Of the photos that it reads.
        read: Files that it reads, label maps in the same folder included.
    """
    others = unread_by_ending(folder, suffix, read)
    if not others:
        return ""
    counts = ", ".join(f"{number:,} {ending}" for ending, number in others.most_common(5))
    return (
        f"{sum(others.values()):,} pictures below {folder!r} are not read, since they do not end "
        f"with {suffix!r}: {counts}; rename them, or set the suffix"
    )


def unread_by_ending(folder: str, suffix: str, read: Collection[str]) -> Counter[str]:
    """Pictures below ``folder`` that are not read and do not end with ``suffix``, by ending.

    What systems and programs put there for themselves (:func:`is_litter`) is no picture of anyone.
    """
    others: Counter[str] = Counter()
    for path in files_below(folder):
        ending = ending_of(path)
        picture = ending.lower() in PICTURES and not (suffix and path.endswith(suffix))
        if picture and path not in read:
            others[ending] += 1
    return others


def unread_ending_with(folder: str, suffix: str, read: Collection[str]) -> int:
    """How many files below ``folder`` end with the whole ``suffix`` and are not read.

    Cityscapes has four label maps a photo, of several suffixes and one ending.
    """
    return sum(path.endswith(suffix) and path not in read for path in files_below(folder))


def files_below(folder: str) -> Iterator[str]:
    """All files below a folder but for those of :func:`is_litter`."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_litter(name)]
        yield from (os.path.join(place, name) for name in names if not is_litter(name))


def is_litter(name: str) -> bool:
    """Whether a file or folder is a system's own: ``._a.jpg``, ``.ipynb_checkpoints``, ``@eaDir``.

    mmengine lists no hidden files either.
    """
    return name.startswith(".") or name in ("@eaDir", "__MACOSX")


def ending_of(name: str) -> str:
    """``.png`` of ``a.png`` and of the suffix ``.png`` itself."""
    return f".{name.rpartition('.')[2]}"


def repeated(paths: Sequence[str], source: str) -> str:
    """How many photos are listed more than once; ``''`` if none."""
    twice = [path for path, number in Counter(paths).items() if number > 1]
    if not twice:
        return ""
    return (
        f"{len(twice):,} photos are listed more than once{f' in {source}' * bool(source)} "
        f"and count as often: {twice[0]!r}{', ...' if len(twice) > 1 else ''}"
    )
