#!/usr/bin/env python
"""The whole road in one command: draw a world, test four readouts, train CAT-Seg, compare.

python tools/demo.py            # work_dirs/demo/: logs, checkpoint, sheet.png
python tools/demo.py --write    # and results/shapes_segmentation.json, which the README shows
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import cv2
import numpy as np

from mmclipdis.apis.cli import run
from mmclipdis.apis.run import find_checkpoint, test
from mmclipdis.engine.results import write_results
from mmclipdis.shapes.coco import LABEL_SUFFIX, Settings
from mmclipdis.shapes.world import CLASSES, PALETTE
from mmclipdis.utils.places import RESULTS
from mmclipdis.visualization.sheet import draw_sheet

ROOT = Path(__file__).parents[1]
READOUTS = {"CLIP": "clip", "MaskCLIP": "maskclip", "SCLIP": "sclip", "ClearCLIP": "clearclip"}
METRICS = ("mIoU", "mIoU_base", "mIoU_novel", "mIoU_stuff")
SHEET_IMAGES = 6


def main(arguments: list[str] | None = None) -> None:
    """Run every step, print each command as a user would type it, then one table."""
    args = parse_args(arguments)

    started = time.perf_counter()
    tool(
        "tools/dataset_converters/shapes.py",
        *(args.data, "--train", args.train, "--val", args.val),
    )
    rows = {name: evaluate(file, args) for name, file in READOUTS.items()}
    rows["CAT-Seg"] = train_and_evaluate(args)
    sheet = picture_sheet(args, [*READOUTS.values(), "catseg"], list(rows))
    print("\n" + table(rows))
    print(
        "\nmIoU in percent. base: classes labelled in training; novel: never labelled; "
        "stuff: the grounds."
        f"\npictures: {sheet}   total: {time.perf_counter() - started:.0f} s"
    )
    if args.write:
        write_results(
            RESULTS / "shapes_segmentation.json",
            [dict(name=name, metrics=rounded(metrics)) for name, metrics in rows.items()],
            seeds=[args.seed],
        )


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/shapes"), help="generated world")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("work_dirs/demo"), help="logs, checkpoint, pictures"
    )
    parser.add_argument("--train", type=int, default=Settings.train, help="training images")
    parser.add_argument("--val", type=int, default=Settings.val, help="test images")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument(
        "--write", action="store_true", help="write results/shapes_segmentation.json"
    )
    return parser.parse_args(arguments)


def tool(script: str, *options: object, only: str = "") -> None:
    """Run a tool of this repository in a process of its own; stop if it fails.

    With ``only``, of what it prints those lines are shown that hold this text, from there on.
    """
    command = [script, *map(str, options)]
    print("$ python", " ".join(command).replace(f"{ROOT}/", ""), flush=True)
    with subprocess.Popen(
        [sys.executable, ROOT / command[0], *command[1:]],
        stdout=subprocess.PIPE if only else None,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore::UserWarning"},  # mmseg's, about itself
    ) as process:
        for line in process.stdout or ():
            if only in line:
                print("  ", line[line.index(only) :].rstrip(), flush=True)
    if process.returncode:
        sys.exit(process.returncode)


def evaluate(config: str, args: argparse.Namespace, checkpoint: str = "") -> dict[str, float]:
    """What ``tools/test.py`` does, in this process; label maps go to ``WORK_DIR/CONFIG/labels``."""
    path = Path("configs") / "shapes" / f"{config}.py"
    folder = args.work_dir / config
    options = [str(path), *([checkpoint] if checkpoint else []), "--work-dir", str(folder)]
    options += ["--out", str(folder / "labels")]
    options += ["--cfg-options", f"test_dataloader.dataset.data_root={args.data}"]
    print("$ python tools/test.py", *options, flush=True)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # mmseg's, about itself
        metrics = test([str(ROOT / path), *options[1:], "log_level=ERROR"])
    seconds = time.perf_counter() - started
    print("  ", ", ".join(f"{key} {metrics[key]:.1f}" for key in METRICS), flush=True)
    return {**{key: float(metrics[key]) for key in METRICS}, "seconds": seconds}


def train_and_evaluate(args: argparse.Namespace) -> dict[str, float]:
    """Train CAT-Seg on the base classes and test it on all of them."""
    folder = args.work_dir / "catseg"
    started = time.perf_counter()
    tool(
        "tools/train.py",
        *(ROOT / "configs" / "shapes" / "catseg.py", "--work-dir", folder, "--cfg-options"),
        f"train_dataloader.dataset.data_root={args.data}",
        f"val_dataloader.dataset.data_root={args.data}",
        f"randomness.seed={args.seed}",
        only="Iter(train)",
    )
    print(f"   the whole log is in {folder}", flush=True)
    trained = time.perf_counter() - started
    metrics = evaluate("catseg", args, find_checkpoint(str(folder)))
    return {**metrics, "seconds": metrics["seconds"] + trained}


def picture_sheet(args: argparse.Namespace, configs: list[str], names: list[str]) -> Path:
    """One row an image: the image, its labels, and the labels of each method."""
    images = sorted((args.data / "images" / "val").glob("*.png"))[:SHEET_IMAGES]
    rows = []
    for image in images:
        truth = args.data / "annotations" / "val" / f"{image.stem}{LABEL_SUFFIX}"
        files = [truth, *(args.work_dir / c / "labels" / f"{image.stem}.png" for c in configs)]
        labels = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
        rows.append([cv2.imread(str(image))[..., ::-1], *labels])
    path = args.work_dir / "sheet.png"
    titles = ["image", "ground truth", *names]
    draw_sheet(rows, titles, CLASSES, np.array(PALETTE), path)
    return path


def rounded(metrics: dict[str, float]) -> dict[str, float]:
    """``metrics`` with the seconds as precise as they repeat."""
    return {**metrics, "seconds": round(metrics["seconds"], 1)}


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as text, one line a method."""
    columns = [*METRICS, "seconds"]
    lines = [f"{'':12}" + "".join(f"{column:>12}" for column in columns)]
    for name, metrics in rows.items():
        lines.append(f"{name:12}" + "".join(f"{metrics[column]:12.1f}" for column in columns))
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, None)
