"""Options of ``tools/dataset_converters/pseudo_boxes.py``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mmclipdis.apis.cfg_options import CfgOptions
from mmclipdis.apis.cli import DEBUG_VARIABLE, UserInputError
from mmclipdis.datasets.detection.proposals import ProposalFilters


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserInputError: options that do not go together.
    """
    args = _parser().parse_args(arguments)
    if args.debug:
        os.environ[DEBUG_VARIABLE] = "1"
    args.work_dir, args.launcher = None, "none"  # what other tools have besides
    needed = args.proposals is None or args.weight == "density"
    if needed and args.checkpoint is None:
        raise UserInputError(
            "no CHECKPOINT: the detector's proposals are taken, or its dense map is read. Without "
            "one give --proposals FILE and --weight objectness"
        )
    if args.refine and args.proposals is not None:
        raise UserInputError("--refine moves a detector's proposals, not those of --proposals FILE")
    if args.checkpoint is not None and not needed:
        raise UserInputError(
            "CHECKPOINT is not read with --proposals FILE and --weight objectness: leave one out"
        )
    return args


def _number(
    kind: Callable[[str], float], low: float, high: float, above: bool = False
) -> Callable[[str], float]:
    """Reader of an option that is a number from ``low`` (or above it) to ``high``."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not (low < value if above else low <= value) or not value <= high:
            what = "a whole number" if kind is int else "a number"
            start = f"above {low}" if above else f"from {low}"
            end = (
                "" if high == float("inf") else f" to {high}" if not above else f", at most {high}"
            )
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} {start}{end}")
        return value

    return read


def _parser() -> argparse.ArgumentParser:
    inf = float("inf")
    share, over = _number(float, 0, 1, above=True), _number(float, 0, 1)
    count = _number(int, 1, inf)
    default = ProposalFilters()
    parser = argparse.ArgumentParser(
        prog="pseudo_boxes.py",
        description="Make a file for OVCocoDataset(pseudo_boxes=...): class-agnostic proposals on "
        "the training images of a config, filtered and weighed.",
    )
    add = parser.add_argument
    add("config", help="its train_dataloader has the images; its model proposes")
    add("checkpoint", nargs="?", help="of that model, a two-stage detector such as FViT")
    add("--out", type=Path, required=True, help="json to write")
    add("--proposals", type=Path, help="take them from a json list of image_id, bbox and score")
    add(
        "--refine",
        action="store_true",
        help="move proposals by the detector's second stage, "
        "whose boxes must not depend on classes, as F-ViT's; their scores stay the RPN's",
    )
    add("--weight", choices=("objectness", "density"), default="objectness", help="the proposal's "
        "score, or how unlike ground its place is: f_fg / (f_fg + f_bg) at the error of an "
        "auto-encoder of the frozen CLIP's dense map (default: %(default)s)")  # fmt: skip
    add("--max-share", type=share, default=default.max_share, help="largest share of the image's "
        "area (default: %(default)s)")  # fmt: skip
    add("--min-area", type=_number(float, 0, inf), default=default.min_area,
        help="smallest area in square pixels (default: %(default)s)")  # fmt: skip
    add("--max-aspect", type=_number(float, 1, inf), default=default.max_aspect,
        help="longest side over the shortest (default: %(default)s)")  # fmt: skip
    add("--nms-iou", type=over, default=default.nms_iou, help="(default: %(default)s)")
    add("--known-iou", type=over, default=default.known_iou,
        help="most overlap with a box of a base class (default: %(default)s)")  # fmt: skip
    add("--per-image", type=count, default=default.per_image, help="most boxes of an image "
        "(default: %(default)s)")  # fmt: skip
    add("--best", type=share, default=default.best, help="share of all boxes that is taken, the "
        "best by score (default: %(default)s)")  # fmt: skip
    add("--explained", type=_number(float, 0.01, 0.999), default=0.8, help="share of the dense "
        "map's variance that the auto-encoder keeps (default: %(default)s)")  # fmt: skip
    add("--fit-images", type=count, default=2000, help="images that the auto-encoder and the "
        "densities are fitted to (default: %(default)s)")  # fmt: skip
    add("--seed", type=_number(int, 0, 2**63 - 1), default=0, help="chooses those images, and "
        "boxes of ground in them (default: %(default)s)")  # fmt: skip
    add("--batch-size", type=count, default=4)
    add("--workers", type=_number(int, 0, inf), default=2, help="processes that load photos "
        "(default: %(default)s)")  # fmt: skip
    add("--device", help="such as cuda:0 or cpu; a GPU if there is one")
    add("--overwrite", action="store_true", help="replace FILE, and a part of one that was made "
        "with other options")  # fmt: skip
    add("--cfg-options", nargs="+", action=CfgOptions, help="settings that replace the config's")
    add("--debug", action="store_true", help=f"show tracebacks (or set {DEBUG_VARIABLE}=1)")
    return parser
