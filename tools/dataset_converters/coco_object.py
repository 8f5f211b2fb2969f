"""Make COCO-Object label maps (80 things and one background) from COCO-Stuff 164k pixel maps.

    python tools/dataset_converters/coco_object.py data/coco_stuff164k --nproc 8

reads ``annotations/{train2017,val2017}/<name>.png`` (the raw maps, not ``*TrainIds.png``) and
writes ``<name>_instanceTrainIds.png`` beside each. The k-th thing id, k = 0..79, becomes k + 1;
stuff and unlabelled pixels become 0, so no pixel is ignored. Files that are there are kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from mmclipdis.apis.cli import run as run_tool
from mmclipdis.apis.resources import line_of
from mmclipdis.datasets.conversion.files import read_picture, write_labels
from mmclipdis.utils.processes import each

SPLITS = ("train2017", "val2017")
EXPECTED_FILES = 123_287
#: Thing ids (0-based) that COCO dropped before its first release; no pixel has them.
ABSENT_THINGS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
STUFF = range(91, 182)
UNLABELLED = 255
#: Marks values that must not occur.
INVALID = 254


def label_table() -> np.ndarray:
    """Return the label of each raw value, uint8 (256,); ``INVALID`` where there is none."""
    table = np.full(256, INVALID, dtype=np.uint8)
    things = [i for i in range(91) if i not in ABSENT_THINGS]
    table[things] = np.arange(1, len(things) + 1)
    table[list(STUFF)] = 0
    table[UNLABELLED] = 0
    return table


def find_raw_maps(root: Path) -> list[Path]:
    """List raw pixel maps below ``root/annotations``, sorted.

    Raises:
        FileNotFoundError: the folders are not there, or empty.
    """
    folders = [root / "annotations" / split for split in SPLITS]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if len(missing) == len(folders):
        raise FileNotFoundError(
            f"none of {missing} exists; give the folder that holds COCO-Stuff's 'annotations'"
        )
    maps = [path for folder in folders for path in sorted(folder.glob("*.png"))]
    raw = [path for path in maps if not path.stem.endswith("TrainIds")]
    if not raw:
        raise FileNotFoundError(f"no raw pixel maps (*.png) below {root / 'annotations'}")
    return raw


def target_of(raw: Path) -> Path:
    """Return where the converted map of ``raw`` goes."""
    return raw.with_name(f"{raw.stem}_instanceTrainIds.png")


def convert(raw: Path) -> Path:
    """Convert one map; the result appears whole or not at all.

    Raises:
        ValueError: the file is no single-channel image, or holds a value that COCO-Stuff has not.
    """
    pixels = np.asarray(read_picture(raw))
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"{raw} is no 8-bit single-channel map: {pixels.dtype} {pixels.shape}")
    labels = label_table()[pixels]
    if (labels == INVALID).any():
        wrong = np.unique(pixels[labels == INVALID]).tolist()
        raise ValueError(f"{raw} holds {wrong}, which are no ids of COCO-Stuff's raw maps")
    target = target_of(raw)
    write_labels(target, labels)
    return target


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="COCO-Stuff folder that holds 'annotations'")
    parser.add_argument("--nproc", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help=f"accept another number of maps than the {EXPECTED_FILES:,} of train2017 + val2017",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Convert what is not converted yet; return the exit status."""
    args = parse_args(argv)
    try:
        raw = find_raw_maps(args.root)
        if len(raw) != EXPECTED_FILES and not args.allow_partial:
            raise ValueError(
                f"found {len(raw):,} raw maps, train2017 and val2017 have {EXPECTED_FILES:,} "
                "together; complete the download, or pass --allow-partial"
            )
        todo = [path for path in raw if not target_of(path).exists()]
        print(f"{len(raw):,} raw maps, {len(raw) - len(todo):,} converted before")
        if args.dry_run:
            print(
                f"would write {len(todo):,} maps, the first of them {target_of(todo[0])}"
                if todo
                else "nothing to do"
            )
            return 0
        for _ in each(convert, todo, args.nproc, unit="map"):
            pass
    except (OSError, ValueError) as error:  # also a full disk, or a folder that is not ours
        print(f"error: {line_of(error)}", file=sys.stderr)
        return 1
    print(f"wrote {len(todo):,} maps")
    return 0


if __name__ == "__main__":
    run_tool(lambda _: sys.exit(main()), None)
