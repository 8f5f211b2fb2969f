"""Draws ShapeScenes into a folder, in COCO layout.

Example::

    python tools/dataset_converters/shapes.py data/shapes
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmclipdis.apis.cli import run
from mmclipdis.apis.resources import line_of
from mmclipdis.shapes.coco import Settings, write_dataset


def main() -> None:
    """Reads the command line and writes the data set."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--train", type=int, default=Settings.train, help="training images")
    parser.add_argument("--val", type=int, default=Settings.val, help="test images")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="of the pictures")
    parser.add_argument(
        "--objects", type=int, nargs=2, metavar=("LEAST", "MOST"), help="of a picture; 1 to 5 as is"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--overwrite", action="store_true", help="replace what the folder holds")
    args = parser.parse_args()
    try:
        objects = tuple(args.objects) if args.objects else None
        settings = Settings(args.train, args.val, args.seed, objects=objects)
        written = write_dataset(args.out, settings, overwrite=args.overwrite, workers=args.workers)
    except (OSError, ValueError) as error:
        parser.error(line_of(error))
    print(
        f"{args.out}: {'written' if written else 'already complete'}, {args.train} training and "
        f"{args.val} test images, seed {args.seed}"
    )


if __name__ == "__main__":
    run(lambda _: main(), None)
