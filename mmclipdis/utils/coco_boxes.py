"""Boxes of COCO's and LVIS's json, checked once, and completed where that can be done.

What can be computed is filled in (``area``, ``iscrowd``, ``bbox`` from polygons, sizes from the
photos), what a reader leaves out is counted, and what would give a wrong number is refused.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmclipdis.utils.coco_json import check_parts, check_references, short, unique
from mmclipdis.utils.pictures import picture_size


@dataclass
class Findings:
    """What a check of a json filled in, and how many boxes a reader will leave out, by reason."""

    filled: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def filled_line(self) -> str:
        """What was filled in, or ``''``."""
        return ", ".join(f"{what} for {number:,}" for what, number in self.filled.items())

    def dropped_line(self) -> str:
        """Which boxes do not count, or ``''``."""
        return ", ".join(f"{number:,} {why}" for why, number in self.dropped.items())


def check_coco(
    content: Mapping[str, Any], source: str | Path, folder: str | Path | None = None
) -> Findings:
    """Check the content of a detection json and complete it in place.

    Args:
        content: With ``images``, ``annotations`` and ``categories``.
        source: File that it came from, for the messages.
        folder: Of the photos, whose heads tell sizes that are missing; None: nobody knows.

    Returns:
        What was filled in, and how many boxes are without area or outside of their image: they
        stay in the content, data sets leave them out.

    Raises:
        ValueError: What :func:`check_parts` and :func:`check_references` refuse; annotations of
            one id; a box that is not four finite numbers; an image without a name, or without a
            size that anybody knows.
    """
    findings = Findings()
    check_parts(content, source)
    check_references(content, source)
    for image in content["images"]:
        _complete_image(image, source, folder, findings)
    notes = content["annotations"]
    if notes and not any("id" in note for note in notes):
        for number, note in enumerate(notes, start=1):
            note["id"] = number
        findings.filled["annotation ids"] += len(notes)
    unique(notes, "id", "annotations", source)
    _no_id_zero(notes, findings)
    for note in notes:
        if "bbox" not in note:
            note["bbox"] = _box_of(note, source)
            findings.filled["bbox (from the polygons)"] += 1
    boxes = _boxes(notes, source)
    for note, box in zip(notes, boxes.tolist()):
        _complete_note(note, box, source, findings)
    _count_unusable(content, boxes, findings)
    return findings


def _no_id_zero(notes: Sequence[dict[str, Any]], findings: Findings) -> None:
    """Give an annotation 0 another id: pycocotools takes 0 for "not found", a hit for a miss."""
    for note in notes:
        if note["id"] == 0 and not isinstance(note["id"], bool):
            numbers = [n["id"] for n in notes if isinstance(n["id"], int)]
            note["id"] = max(numbers) + 1
            findings.filled["another id than 0"] += 1
            return


def say_what_is_odd(content: Mapping[str, Any], source: str | Path) -> str:
    """Check as :func:`check_coco`, and change nothing; return what is missing or unusable."""
    parts = {part: [dict(item) for item in content[part]] for part in ("images", "annotations")}
    found = check_coco({**content, **parts}, source)
    missing, dropped = found.filled_line(), found.dropped_line()
    lines = [f"readers fill in {missing}"] * bool(missing) + [f"boxes {dropped}"] * bool(dropped)
    return "; ".join(lines)


def _complete_image(
    image: dict[str, Any], source: str | Path, folder: str | Path | None, findings: Findings
) -> None:
    where = f"{source}: image {image['id']!r}"
    name = str(image.get("file_name", image.get("coco_url")))
    if image.get("height") is None or image.get("width") is None:
        path = None if folder is None else os.path.join(str(folder), name)
        if path is None or not os.path.isfile(path):
            raise ValueError(
                f"{where} has no height and width, and there is no photo {path or name!r} to ask; "
                "add both, in pixels"
            )
        image["width"], image["height"] = picture_size(path)
        findings.filled["height and width (from the photos)"] += 1
    for key in ("height", "width"):
        value = image[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value < 2**31:
            raise ValueError(f"{where} has {key}={value!r}; it is a number of pixels, 1 or more")


def _boxes(notes: Sequence[Mapping[str, Any]], source: str | Path) -> np.ndarray:
    """x, y, width, height of all annotations, float (n, 4)."""
    listed = [note["bbox"] for note in notes]
    try:
        boxes = np.array(listed if listed else np.zeros((0, 4)))
    except ValueError:  # lists of several lengths
        boxes = np.array(0)
    if boxes.shape == (len(notes), 4) and boxes.dtype.kind in "iuf" and np.isfinite(boxes).all():
        return boxes.astype(np.float64)
    wrong = [note for note in notes if not is_box(note["bbox"])] or notes[:1]
    raise ValueError(
        f"{source}: annotation {wrong[0]['id']} (image {wrong[0]['image_id']}) has the bbox "
        f"{short(wrong[0]['bbox'])}, which is not x, y, width, height as four finite numbers "
        f"({len(wrong):,} of {len(notes):,} annotations); repair or remove them"
    )


def is_box(box: Any) -> bool:
    """Whether ``box`` is four finite numbers."""
    return (
        isinstance(box, (list, tuple))
        and len(box) == 4
        and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in box)
        and all(abs(x) < 2**63 for x in box)  # false for NaN as well
    )


def _complete_note(
    note: dict[str, Any], box: Sequence[float], source: str | Path, findings: Findings
) -> None:
    crowd = note.get("iscrowd")
    if crowd is None:
        note["iscrowd"] = 0
        findings.filled["iscrowd=0"] += 1
    elif crowd not in (0, 1):
        raise ValueError(
            f"{source}: annotation {note['id']} has iscrowd={short(crowd)}; it is 0 or 1"
        )
    area = note.get("area")
    if area is None or area != area:  # nan
        note["area"] = _area_of(note, box)
        findings.filled["area"] += 1
    elif isinstance(area, bool) or not isinstance(area, (int, float)):
        raise ValueError(
            f"{source}: annotation {note['id']} has the area {short(area)}; it is a number of "
            "pixels"
        )


def _polygons(note: Mapping[str, Any]) -> list[np.ndarray]:
    """Corners (n, 2) of each polygon; none if the mask is of another kind."""
    parts = note.get("segmentation")
    if not isinstance(parts, list):
        return []
    try:
        corners = [np.asarray(part, dtype=np.float64).reshape(-1, 2) for part in parts]
    except (TypeError, ValueError):
        return []
    return [part for part in corners if len(part) >= 3 and np.isfinite(part).all()]


def _box_of(note: Mapping[str, Any], source: str | Path) -> list[float]:
    polygons = _polygons(note)
    if not polygons:
        raise ValueError(
            f"{source}: annotation {note.get('id')} (image {note.get('image_id')}) has no bbox, "
            "and no polygons to compute it from; add it, or take a file of instances"
        )
    corners = np.concatenate(polygons)
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    return [float(left), float(top), float(right - left), float(bottom - top)]


def _area_of(note: Mapping[str, Any], box: Sequence[float]) -> float:
    """Pixels of the polygons or runs, or of the box where there are none."""
    mask = note.get("segmentation")
    if isinstance(mask, Mapping) and isinstance(mask.get("counts"), list):
        with contextlib.suppress(TypeError):
            return float(sum(mask["counts"][1::2]))
    if isinstance(mask, Mapping) and isinstance(mask.get("counts"), str):
        with contextlib.suppress(ImportError, TypeError, ValueError):
            from pycocotools import mask as runs  # mmdet's, which is optional

            return float(runs.area({"size": mask["size"], "counts": mask["counts"].encode()}))
    area = 0.0
    for x, y in (part.T for part in _polygons(note)):
        area += abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return area or max(box[2], 0) * max(box[3], 0)


def _count_unusable(content: Mapping[str, Any], boxes: np.ndarray, findings: Findings) -> None:
    """Count what mmdet's reader leaves out without a word."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    notes = content["annotations"]
    if not notes:
        return
    size = np.array([sizes[note["image_id"]] for note in notes], dtype=np.float64)
    area = np.array([note["area"] for note in notes], dtype=np.float64)
    small = (boxes[:, 2:] < 1).any(1) | (area <= 0)
    end = np.minimum(boxes[:, :2] + boxes[:, 2:], size)
    outside = ((end - np.maximum(boxes[:, :2], 0)) <= 0).any(1) & ~small
    for why, flags in (("without area", small), ("outside of their image", outside)):
        if flags.any():
            findings.dropped[why] += int(flags.sum())
