"""Make PC-59 and PC-459 (PASCAL Context with 59 and 459 classes) from the raw annotations.

    python tools/dataset_converters/pascal_context.py data/VOCdevkit/VOC2010 --nproc 8

``VOC2010`` holds ``JPEGImages`` and, for PC-59, ``trainval_merged.json``; for PC-459
``trainval/*.mat`` and ``labels.txt``. It writes there

- PC-59: ``SegmentationClassContext/<name>.png``, 8 bits, 0 (none) and 1..59, as mmseg has them, of
  the training and the validation photos; ``ImageSets/SegmentationContext/{train,val}.txt``;
- PC-459: ``SegmentationClassContext459/<name>.tif``, 16 bits, 0..458 and 65535 (none), of the
  validation photos; ``SegmentationClassContext459/classes.txt``;
  ``ImageSets/SegmentationContext/val_459.txt``.

Segments of the json are painted in its order, the later over the earlier. The json is read whole.
``--benchmarks 59`` or ``--benchmarks 459`` makes one of the two. The published PC-459 numbers are
on the 5,104 photos of ``pascalcontext_val.txt`` (``--ids``); without it the validation photos of
the json are taken. Files that are there are kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmclipdis.apis.cli import run as run_tool
from mmclipdis.apis.resources import line_of
from mmclipdis.datasets.conversion.detail_json import CONTEXT59_IDS, Photo, paint, read_photos
from mmclipdis.datasets.conversion.files import (
    lines_differ,
    photo_size,
    write_labels,
    write_lines,
)
from mmclipdis.datasets.segmentation.context459 import IGNORED, read_label_map, read_names
from mmclipdis.utils.processes import each

LISTS = "ImageSets/SegmentationContext"
FOLDER_59 = "SegmentationClassContext"
FOLDER_459 = "SegmentationClassContext459"
EXPECTED_59 = {"train": 4_998, "val": 5_105}
EXPECTED_459 = 5_104

Segments = list[tuple[Any, int, Any]]


@dataclass(frozen=True)
class Plan:
    """What one benchmark needs: label maps (the target is last in a task), and texts."""

    name: str
    job: Callable[[Any], tuple[Path, int]]
    tasks: list[tuple[Any, ...]]
    #: Number of label maps, those converted before included.
    maps: int
    texts: dict[Path, list[str]]


def read_ids(path: Path) -> list[str]:
    """Names of photos, one a line; folders and suffixes do not count.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, or names a photo twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no list of photos {path}; see --ids")
    ids = [Path(line.strip()).stem for line in path.read_text().splitlines() if line.strip()]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"{path} lists {len(ids)} photos, {len(set(ids))} different ones")
    return ids


def convert_59(task: tuple[Path, Segments, Path]) -> tuple[Path, int]:
    """Paint (photo, segments, target); returns the target and how many pixels have no label.

    Raises:
        FileNotFoundError: the photo is not there.
        ValueError: a segment cannot be painted.
    """
    photo, segments, target = task
    try:
        labels = paint(segments, *photo_size(photo))
    except ValueError as error:
        raise ValueError(f"{photo.name}: {error}") from error
    write_labels(target, labels)
    return target, int((labels == 0).sum())


def convert_459(task: tuple[Path, Path, Path]) -> tuple[Path, int]:
    """Renumber (photo, .mat, target); returns the .mat and how many pixels have no label.

    Raises:
        FileNotFoundError: the photo is not there.
        ValueError: the .mat is damaged, holds a wrong label, or has another size than the photo.
    """
    photo, source, target = task
    raw = read_label_map(source)
    if raw.shape != photo_size(photo):
        raise ValueError(f"{source} has size {raw.shape}, its photo {photo_size(photo)}")
    labels = raw.astype(np.uint16) - np.uint16(1)  # 0 becomes 65535
    write_labels(target, labels)
    return source, int((labels == IGNORED).sum())


def check_count(what: str, found: int, expected: Sequence[int], allow: bool) -> None:
    """Print the count beside the published one; raise ValueError if it is another."""
    print(f"{what}: {found:,} photos (published {expected[0]:,})")
    if found not in expected and not allow:
        raise ValueError(
            f"{what} has {found:,} photos, published are {expected[0]:,}; complete the download, "
            "or pass --allow-partial"
        )


def report_others(photos: Sequence[Photo]) -> None:
    """Say how many segments are of none of the 59 categories, and where the first is."""
    others = [(p.name, category) for p in photos for _, category, _ in p.segments]
    others = [(name, category) for name, category in others if category not in CONTEXT59_IDS]
    if others:
        print(
            f"PC-59: {len(others):,} segments of {len({c for _, c in others}):,} other categories "
            f"have no label, first in {others[0][0]} (category {others[0][1]})"
        )


def plan_59(args: argparse.Namespace, photos: Sequence[Photo]) -> Plan:
    """Find out what PC-59 needs; raises ValueError for another number of photos."""
    lists = {}
    for phase, expected in EXPECTED_59.items():
        names = [photo.name for photo in photos if photo.phase == phase]
        check_count(f"PC-59 {phase}", len(names), [expected], args.allow_partial)
        lists[args.root / LISTS / f"{phase}.txt"] = names
    report_others(photos)
    targets = [
        (photo, args.root / FOLDER_59 / f"{photo.name}.png")
        for photo in photos
        if photo.phase in EXPECTED_59
    ]
    tasks = [
        (args.root / "JPEGImages" / f"{photo.name}.jpg", photo.segments, target)
        for photo, target in targets
        if not target.exists()
    ]
    return Plan("PC-59", convert_59, tasks, len(targets), lists)


def plan_459(args: argparse.Namespace, photos: Sequence[Photo]) -> Plan:
    """Find out what PC-459 needs.

    Raises:
        FileNotFoundError: a list, the folder of .mat files, or some of those are not there.
        ValueError: a wrong list, or another number of photos.
    """
    classes = read_names(args.labels or args.root / "labels.txt")
    folder = args.mats or args.root / "trainval"
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder} of .mat files; see --mats and --benchmarks")
    if args.ids:
        ids, expected = read_ids(args.ids), [EXPECTED_459]
    else:  # the published list may lack one that the json has
        ids, expected = (
            [p.name for p in photos if p.phase == "val"],
            [EXPECTED_459, EXPECTED_459 + 1],
        )
    names = [name for name in ids if (folder / f"{name}.mat").is_file()]
    if len(names) < len(ids):
        first = next(name for name in ids if not (folder / f"{name}.mat").is_file())
        lacking = f"{len(ids) - len(names):,} of {len(ids):,} photos have no .mat, such as {first}"
        if args.ids and not args.allow_partial:
            raise FileNotFoundError(f"{lacking}, in {folder}; complete it or pass --allow-partial")
        print(f"PC-459: {lacking}")
    check_count("PC-459 val", len(names), expected, args.allow_partial)
    target = args.root / FOLDER_459
    tasks = [
        (args.root / "JPEGImages" / f"{name}.jpg", folder / f"{name}.mat", target / f"{name}.tif")
        for name in names
        if not (target / f"{name}.tif").exists()
    ]
    texts = {target / "classes.txt": classes, args.root / LISTS / "val_459.txt": names}
    return Plan("PC-459", convert_459, tasks, len(names), texts)


def carry_out(plan: Plan, args: argparse.Namespace) -> None:
    """Write the label maps and then the texts of a benchmark, or say so in a dry run.

    Raises:
        FileExistsError: a text is there with other content, and ``--overwrite`` is not set.
        FileNotFoundError, ValueError: a file is missing or cannot be converted.
    """
    texts = {
        path: lines
        for path, lines in plan.texts.items()
        if lines_differ(
            path,
            lines,
            "move it away, or pass --overwrite to replace it",
            ordered=path.name == "classes.txt",
            overwrite=args.overwrite,
        )
    }
    print(f"{plan.name}: {plan.maps - len(plan.tasks):,} of {plan.maps:,} maps converted before")
    if args.dry_run:
        files = [*texts, *(task[-1] for task in plan.tasks[:1])]
        print("".join(f"would write {path}\n" for path in files) or "nothing to do\n", end="")
        return
    lacking = [(path, n) for path, n in each(plan.job, plan.tasks, args.nproc, unit="map") if n]
    for path, lines in texts.items():  # last: a list names only what is there
        write_lines(path, lines)
    print(f"{plan.name}: wrote {len(plan.tasks):,} maps and {len(texts)} lists")
    if lacking:
        pixels, first = sum(n for _, n in lacking), min(lacking)[0]
        print(
            f"{plan.name}: {pixels:,} pixels of {len(lacking):,} maps have no class, as in {first}"
        )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder VOC2010, to read from and to write to")
    parser.add_argument("--benchmarks", nargs="+", choices=["59", "459"], default=["59", "459"])
    parser.add_argument("--json", type=Path, help="default: root/trainval_merged.json")
    parser.add_argument("--mats", type=Path, help="folder of .mat files (root/trainval)")
    parser.add_argument("--labels", type=Path, help="the 459 names (root/labels.txt)")
    parser.add_argument("--ids", type=Path, help="photos of PC-459, one a line")
    parser.add_argument("--nproc", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--overwrite", action="store_true", help="replace lists that differ")
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="accept other numbers of photos than the published ones",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Check the input of all that is asked for, then convert what is not converted yet."""
    if not (args.root / "JPEGImages").is_dir():
        raise FileNotFoundError(f"no folder {args.root / 'JPEGImages'}; give VOCdevkit/VOC2010")
    photos = []
    if "59" in args.benchmarks or not args.ids:
        photos = read_photos(args.json or args.root / "trainval_merged.json")
    planners = {"59": plan_59, "459": plan_459}
    plans = [planners[name](args, photos) for name in dict.fromkeys(args.benchmarks)]
    for plan in plans:
        carry_out(plan, args)


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
