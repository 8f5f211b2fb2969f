"""COCO's and LVIS's json: read, and checked for what every reader of such files needs.

Data sets of all tasks, metrics and converters come here; :mod:`mmclipdis.utils.coco_boxes` checks
and completes what detection needs besides.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

PARTS = ("images", "annotations", "categories")
#: Keys by which files of other programs are known.
_OTHERS = {
    "shapes": "of labelme, for one photo",
    "_via_img_metadata": "a project of VIA",
    "objects": "of Supervisely, for one photo",
}
#: First bytes of files that hold a json in another wrapping.
_WRAPPED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


def read_json(path: str | Path, remedy: str) -> Any:
    """Content of a json.

    Args:
        path: Of the file.
        remedy: What to do if it is not there, for the message.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no json: truncated, compressed, something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {str(path)!r}; {remedy}")
    data = path.read_bytes()
    kind = next((kind for head, kind in _WRAPPED.items() if data.startswith(head)), None)
    if kind:
        raise ValueError(f"{path} is no json, it is compressed ({kind}); unpack it first")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no json ({error}); download it again") from error


def read_coco(path: str | Path, remedy: str = "download it, or name another") -> dict[str, Any]:
    """Content of a json with lists of images, annotations and categories, whose entries are dicts.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_json`, or it has not all lists.
    """
    content = read_json(path, remedy)
    check_parts(content, path)
    return dict(content)


def check_parts(content: Any, source: str | Path, parts: Sequence[str] = PARTS) -> None:
    """Check that ``content`` has these lists of dicts, and that no id stands for two.

    Raises:
        ValueError: A list, an entry's ``id`` or a category's ``name`` is missing, or one id or one
            name of a category is there twice.
    """
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{source} is no COCO or LVIS annotation file: it holds a {type(content).__name__} "
            f"instead of {', '.join(parts)}"
        )
    lacking = [part for part in parts if not isinstance(content.get(part), list)]
    if lacking:
        kind = next((kind for key, kind in _OTHERS.items() if key in content), "")
        raise ValueError(
            f"{source} is no COCO or LVIS annotation file: it has no list of "
            f"{' and no list of '.join(lacking)}"
            + (f"; it is {kind}: export the whole project as COCO" if kind else "")
        )
    for part in parts:
        items = content[part]
        wrong = next((place for place, item in enumerate(items) if type(item) is not dict), None)
        if wrong is not None:
            raise ValueError(f"{source}: {part}[{wrong}] is {short(items[wrong])}, no dict")
    for part in parts:
        if part != "annotations":  # those of panoptic files have none
            unique(content[part], "id", part, source)
    for image in content["images"] if "images" in parts else ():
        name = image.get("file_name", image.get("coco_url"))
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"{source}: image {image['id']!r} has no file_name (and no coco_url); add it"
            )
    if "categories" in parts:
        if len({isinstance(category["id"], str) for category in content["categories"]}) > 1:
            raise ValueError(
                f"{source}: some ids of categories are numbers and some are texts; make all numbers"
            )
        for name in unique(content["categories"], "name", "categories", source):
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"{source}: a category is called {name!r}; a name is a text")


def unique(items: Sequence[Mapping[str, Any]], key: str, part: str, source: str | Path) -> Any:
    """The values of ``key`` of all items, each there and none twice."""
    found: dict[Hashable, int] = {}
    for place, item in enumerate(items):
        value = item.get(key)
        if value is None or not isinstance(value, Hashable):
            raise ValueError(f"{source}: {part}[{place}] has no {key}; repair or replace the file")
        first = found.setdefault(value, place)
        if first != place:
            twice = len(items) - len({item.get(key) for item in items})
            raise ValueError(
                f"{source}: {part}[{first}] and {part}[{place}] have the same {key} {value!r} "
                f"({twice:,} of {len(items):,} are taken twice), so that one would take the "
                "other's place; repair or replace the file"
            )
    return found


def check_references(content: Mapping[str, Any], source: str | Path) -> None:
    """Raise ValueError if an annotation names an image or a category that is not listed."""
    for key, part in (("image_id", "images"), ("category_id", "categories")):
        known = {item["id"] for item in content[part]}
        wrong = [note for note in content["annotations"] if _unlisted(note.get(key), known)]
        if wrong:
            note = wrong[0]
            raise ValueError(
                f"{source}: annotation {note.get('id')} has {key} {short(note.get(key))}, which is "
                f"none of its {len(known):,} {part} ({len(wrong):,} of "
                f"{len(content['annotations']):,} annotations); download the file again"
            )


def _unlisted(value: Any, known: set[Any]) -> bool:
    return not isinstance(value, Hashable) or value not in known


def short(value: Any) -> str:
    """``repr`` of a value, cut."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
