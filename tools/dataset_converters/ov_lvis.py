"""Make the training file of OV-LVIS: LVIS v1 without the annotations of rare categories.

    python tools/dataset_converters/ov_lvis.py data/lvis_v1/annotations/lvis_v1_train.json

writes ``lvis_v1_train_seen_1203_cat.json`` beside it, with all categories and all images (100,170)
and the annotations of frequent and common categories (1,264,884). Tests use the official
``lvis_v1_val.json``. A second run changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmclipdis.apis.cli import run as run_tool
from mmclipdis.apis.resources import line_of
from mmclipdis.datasets.detection.annotations import (
    compare_counts,
    counts,
    reduce_annotations,
    write_annotations,
)
from mmclipdis.utils.coco_boxes import say_what_is_odd
from mmclipdis.utils.coco_json import read_coco

TARGET = "lvis_v1_train_seen_1203_cat.json"
OFFICIAL_IMAGES = 100_170
PUBLISHED = {"images": 100_170, "annotations": 1_264_884, "categories": 1_203}


def convert(args: argparse.Namespace) -> None:
    """Make the file and say what was done.

    Raises:
        ValueError: a category has no frequency, as in a file of COCO.
    """
    print(f"reading {args.source}")
    content = read_coco(args.source)
    if odd := say_what_is_odd(content, args.source):
        print(f"note: {args.source}: {odd}", file=sys.stderr)
    for category in content["categories"]:
        if category.get("frequency") not in ("f", "c", "r"):
            raise ValueError(
                f"{args.source}: category {category.get('name')!r} has no frequency f, c or r; "
                "give lvis_v1_train.json"
            )
    listed = [category["id"] for category in content["categories"]]
    keep = [item["id"] for item in content["categories"] if item["frequency"] != "r"]
    reduced = reduce_annotations(content, keep, listed, drop_images=False)
    official = len(content["images"]) == OFFICIAL_IMAGES
    line, warning = compare_counts(counts(reduced), PUBLISHED, official)
    if warning:
        print(warning, file=sys.stderr)
    target = args.out or args.source.with_name(TARGET)
    changed = write_annotations(target, reduced, overwrite=args.overwrite, dry_run=args.dry_run)
    verb = ("would write" if args.dry_run else "wrote") if changed else "nothing to do for"
    print(f"{verb} {target}: {line}")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the official lvis_v1_train.json")
    parser.add_argument("--out", type=Path, help=f"file to write (default: {TARGET} beside it)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that differs")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Make the file; return the exit status."""
    args = parse_args(argv)
    try:
        convert(args)
    except (OSError, ValueError) as error:
        print(f"error: {line_of(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_tool(lambda _: sys.exit(main()), None)
