"""Make the annotation files of OV-COCO (48 base, 17 novel classes) from COCO's official ones.

    python tools/dataset_converters/ov_coco.py data/coco/annotations

reads ``instances_{train2017,val2017}.json`` and writes beside them

- ``instances_train2017_seen_2_65_cat.json``: annotations of the 48 base classes (107,761 images);
- ``instances_val2017_all_2.json``: annotations of all 65 classes (4,836 images).

Both list the 65 categories in the original order; ids stay. Images without an annotation that
stays are left out. A second run changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from mmclipdis.apis.cli import run as run_tool
from mmclipdis.apis.resources import line_of
from mmclipdis.datasets.detection.annotations import (
    compare_counts,
    counts,
    ids_of,
    reduce_annotations,
    write_annotations,
)
from mmclipdis.datasets.detection.classes import BASE_CLASSES, OV_CLASSES
from mmclipdis.utils.coco_boxes import say_what_is_odd
from mmclipdis.utils.coco_json import read_coco


@dataclass(frozen=True)
class Split:
    """One file to make: its classes, and the numbers of images by which it is recognised."""

    source: str
    classes: tuple[str, ...]
    official_images: int
    published_images: int


SPLITS = {
    "train": Split("instances_train2017.json", BASE_CLASSES, 118_287, 107_761),
    "val": Split("instances_val2017.json", OV_CLASSES, 5_000, 4_836),
}


def target_name(split: str, categories: int) -> str:
    """Name of the file to write, as in the literature."""
    if split == "val":
        return "instances_val2017_all_2.json"
    return f"instances_train2017_seen_2{'_65_cat' if categories == 65 else ''}.json"


def convert(split: str, args: argparse.Namespace) -> None:
    """Make the file of one split and say what was done."""
    spec = SPLITS[split]
    source = args.root / spec.source
    print(f"reading {source}")
    content = read_coco(source)
    if odd := say_what_is_odd(content, source):
        print(f"note: {source}: {odd}", file=sys.stderr)
    listed = BASE_CLASSES if split == "train" and args.train_categories == 48 else OV_CLASSES
    reduced = reduce_annotations(
        content,
        ids_of(content, spec.classes, source),
        ids_of(content, listed, source),
        drop_images=True,
    )
    official = len(content["images"]) == spec.official_images
    line, warning = compare_counts(counts(reduced), {"images": spec.published_images}, official)
    if warning:
        print(warning, file=sys.stderr)
    target = (args.out or args.root) / target_name(split, args.train_categories)
    changed = write_annotations(target, reduced, overwrite=args.overwrite, dry_run=args.dry_run)
    verb = ("would write" if args.dry_run else "wrote") if changed else "nothing to do for"
    print(f"{verb} {target}: {line}")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder with the official annotations")
    parser.add_argument("--out", type=Path, help="folder to write to (default: root)")
    parser.add_argument("--splits", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument(
        "--train-categories",
        type=int,
        choices=(65, 48),
        default=65,
        help="categories that the training file lists; 48 makes instances_train2017_seen_2.json",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that differ")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Make the files; return the exit status."""
    args = parse_args(argv)
    try:
        for split in args.splits:
            convert(split, args)
    except (OSError, ValueError) as error:
        print(f"error: {line_of(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_tool(lambda _: sys.exit(main()), None)
