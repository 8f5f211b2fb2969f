"""Make A-847 (ADE20K of 2021 with 847 classes, 2,000 validation photos) from the raw release.

    python tools/dataset_converters/ade20k_full.py downloads/ADE20K_2021_17_01 --nproc 8

reads ``images/ADE/**/ADE_val_*.jpg`` with their ``*_seg.png`` and writes below
``data/ade20k_full``

- ``images/validation/<name>.jpg`` and ``annotations/validation/<name>.tif``: photo and labels, the
  short side at most 512 px; labels have 16 bits, 0..846, and 65535 (ignored) for everything else;
- ``classes.txt``: the 847 names, in the order of the labels.

An object's id is floor(R / 10) * 256 + G of its pixels. Which id is which class stands in
``ade20k_847.json`` beside this file: the list published with MaskFormer and Mask2Former;
``--classes`` takes another one. The index of the release is used only to check that its names agree
with the list. It is a pickle, so nothing in it but plain data and numpy arrays is let through;
photos are found by their names, not in the index. Files that are there are kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmclipdis.apis.cli import run as run_tool
from mmclipdis.apis.resources import line_of
from mmclipdis.datasets.conversion.files import (
    lines_differ,
    read_picture,
    write_labels,
    write_lines,
)
from mmclipdis.datasets.segmentation.ade20k_classes import (
    IGNORED,
    check_names,
    label_table,
    read_classes,
)
from mmclipdis.utils.processes import each
from mmclipdis.utils.whole_files import write_picture

RELEASE = "ADE20K_2021_17_01"
INDEX = "index_ade20k.pkl"
EXPECTED_PHOTOS = 2_000
SHORT_SIDE = 512
CLASSES = Path(__file__).with_name("ade20k_847.json")


@dataclass(frozen=True)
class Paths:
    """Where a photo comes from and goes to."""

    photo: Path
    segments: Path
    new_photo: Path
    labels: Path


@dataclass(frozen=True)
class Outcome:
    """What a label map lost: pixels of objects outside the list, and ids that cannot be."""

    segments: Path
    unlisted: int
    impossible: list[int]


def find_photos(raw: Path, out: Path) -> list[Paths]:
    """List validation photos: those with ``val`` as second part of the name, sorted.

    Raises:
        FileNotFoundError: the folders, the photos or some label maps are not there.
        ValueError: two photos have the same name.
    """
    folder = raw / "images" / "ADE"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; give {RELEASE} as it was unpacked (ADEChallengeData2016 is "
            "another release, with 150 classes)"
        )
    photos: dict[str, Path] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith("ADE_")]  # single instances
        for name in names:
            if name.endswith(".jpg") and name.split("_")[1:2] == ["val"]:
                if name in photos:
                    raise ValueError(
                        f"{photos[name]} and {Path(place) / name}: one name, two photos"
                    )
                photos[name] = Path(place) / name
    if not photos:
        raise FileNotFoundError(f"no photo ADE_val_*.jpg below {folder}; extract the release again")
    found = [
        Paths(
            photo,
            photo.with_name(f"{photo.stem}_seg.png"),
            out / "images" / "validation" / photo.name,
            out / "annotations" / "validation" / f"{photo.stem}.tif",
        )
        for _, photo in sorted(photos.items())
    ]
    lacking = [paths.segments for paths in found if not paths.segments.is_file()]
    if lacking:
        raise FileNotFoundError(
            f"{len(lacking):,} of {len(found):,} photos have no label map, the first of them "
            f"{lacking[0]}; extract the release again"
        )
    return found


def convert(paths: Paths, table: np.ndarray, largest: int) -> Outcome:
    """Write the photo and the labels of one picture.

    Args:
        paths: where from and where to.
        table: uint16 (65536,), the label of each id.
        largest: the highest id that there is.

    Raises:
        ValueError: a file is broken, no label map in RGB, or photo and labels differ in size.
    """
    photo = read_picture(paths.photo).convert("RGB")
    segments = read_picture(paths.segments)
    if segments.mode not in ("RGB", "RGBA") or segments.size != photo.size:
        raise ValueError(
            f"{paths.segments} is {segments.mode} of {segments.size} pixels; expected RGB of "
            f"{photo.size}, as its photo"
        )
    pixels = np.asarray(segments).astype(np.uint16)
    ids = pixels[..., 0] // 10 * 256 + pixels[..., 1]
    labels = table[ids]
    above = ids > largest
    labels[above] = IGNORED
    outcome = Outcome(
        paths.segments,
        int(((labels == IGNORED) & (ids > 0)).sum()),
        np.unique(ids[above]).tolist(),
    )
    short = min(photo.size)
    if short > SHORT_SIDE:
        size = tuple(round(side * SHORT_SIDE / short) for side in photo.size)
        resized = cv2.resize(np.asarray(photo), size, interpolation=cv2.INTER_LINEAR)
        photo = Image.fromarray(resized)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    write_labels(paths.labels, labels)
    write_picture(paths.new_photo, photo)
    return outcome


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", type=Path, help=f"folder {RELEASE}, or the one that holds it")
    parser.add_argument("--out", type=Path, default=Path("data/ade20k_full"), help="to write to")
    parser.add_argument("--classes", type=Path, default=CLASSES, help="list of names and ids")
    parser.add_argument("--no-index", action="store_true", help=f"do not read {INDEX}")
    parser.add_argument("--nproc", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help=f"accept another number of photos than {EXPECTED_PHOTOS:,}",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Convert what is not converted yet and say what was done."""
    raw = args.raw / RELEASE if (args.raw / RELEASE).is_dir() else args.raw
    classes = read_classes(args.classes)
    found = find_photos(raw, args.out)
    if len(found) != EXPECTED_PHOTOS and not args.allow_partial:
        raise ValueError(
            f"found {len(found):,} validation photos, the release has {EXPECTED_PHOTOS:,}; "
            "complete the download, or pass --allow-partial"
        )
    base, largest = check_names(classes, None if args.no_index else raw / INDEX)
    table = label_table(classes, base)
    names = [name for name, _ in classes]
    target = args.out / "classes.txt"
    remedy = f"convert with another list into another folder (--out), or remove {args.out}"
    new_names = lines_differ(target, names, remedy)
    todo = [paths for paths in found if not (paths.new_photo.exists() and paths.labels.exists())]
    print(f"{len(found):,} validation photos, {len(found) - len(todo):,} converted before")
    if args.dry_run:
        files = [str(target)] * new_names + [str(paths.labels) for paths in todo[:1]]
        print(f"would write {len(todo):,} photos and label maps" if todo else "nothing to convert")
        print("".join(f"would write {file}\n" for file in files), end="")
        return
    if new_names:  # first: labels of another list must not go beside it
        write_lines(target, names)
    job = partial(convert, table=table, largest=largest)
    outcomes = list(each(job, todo, args.nproc, unit="photo"))
    unlisted = sum(outcome.unlisted for outcome in outcomes)
    print(f"wrote {len(todo):,} photos and label maps; {unlisted:,} pixels are of other objects")
    wrong = sorted((o for o in outcomes if o.impossible), key=lambda o: o.segments)
    for outcome in wrong[:10]:
        print(
            f"warning: {outcome.segments} holds ids {outcome.impossible[:5]}, but the index has "
            f"{largest:,} objects; these pixels are ignored ({len(wrong):,} such maps)",
            file=sys.stderr,
        )


def main(argv: list[str] | None = None) -> int:
    """Convert what is not converted yet; return the exit status."""
    try:
        run(parse_args(argv))
    except (OSError, ValueError) as error:  # also a full disk, or a folder that is not ours
        print(f"error: {line_of(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_tool(lambda _: sys.exit(main()), None)
