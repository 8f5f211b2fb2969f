"""The options of ``mmclipdis export``, and what they do."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """Write a model with its words into one file that other programs run: the image
tower, a fixed table of text embeddings, and the head. The file is compared with the model before
anything is written, and says itself what its classes are and how photos are prepared."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the export."""
    parser.description = DESCRIPTION
    parser.add_argument("config", help="config, or name of a model (mmclipdis models)")
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--words", help="names of the classes, as 'sky, road, [car, van]'")
    words.add_argument("--words-file", type=Path, help="a file of names, one class a line")
    parser.add_argument("--out", type=Path, help="the file to write; CONFIG.onnx or CONFIG.pt2")
    parser.add_argument("--format", choices=["onnx", "torch"], default="onnx")
    parser.add_argument("--checkpoint", "--weights", help="trained weights, a file or URL")
    parser.add_argument(
        "--image-size",
        nargs="+",
        type=int,
        metavar="PIXELS",
        help="fix the size of images: one side, or height and width; any size without it",
    )
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="do not compare file and model"
    )


def run(args: argparse.Namespace) -> int:
    """Export as the options say; returns the exit code.

    Raises:
        FileNotFoundError, ImportError, RuntimeError, ValueError: as
            :func:`mmclipdis.export.export`.
    """
    from mmclipdis.export.exporter import SUFFIXES, export

    out = args.out or Path(Path(args.config).stem + SUFFIXES[args.format])
    words = args.words if args.words_file is None else args.words_file
    size = args.image_size
    path = export(
        args.config,
        words,
        out,
        format=args.format,
        checkpoint=args.checkpoint,
        image_size=size[0] if size is not None and len(size) == 1 else size,
        check=args.check,
    )
    print(f"wrote {path}")
    return 0
