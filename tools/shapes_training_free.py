#!/usr/bin/env python
"""Every training-free method on ShapeScenes: one table, and a sheet of pictures.

python tools/shapes_training_free.py           # tests, prints; about 10 minutes on 2 cores
python tools/shapes_training_free.py --write   # and results/shapes_training_free.json, the sheet

The vision model of the affinities is the one that ships (``shapes-vfm``). Masks are those of
colours that lie together (``MeanShiftMasks``), which has seen no label. Trident is not here, since
there is no SAM of ShapeScenes. Seconds and memory are those of one picture after another, on one
thread. Finished tests are not repeated unless their config changes; delete the work folder after
changing its bases or the code.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mmclipdis.apis import OpenVocabSegInferencer, experiments
from mmclipdis.apis.cli import run
from mmclipdis.apis.experiments import Metrics, config_file, evaluate, roots
from mmclipdis.shapes.coco import LABEL_SUFFIX
from mmclipdis.shapes.world import CLASSES, PALETTE
from mmclipdis.utils.peak_memory import peak_mb
from mmclipdis.utils.places import RESULTS, ROOT
from mmclipdis.visualization.sheet import draw_sheet

OUT = RESULTS / "shapes_training_free.json"
SHEET = ROOT / "docs" / "pictures" / "training_free.jpg"
METRICS = ("mIoU", "mIoU_base", "mIoU_novel", "mIoU_stuff")

#: Row -> config of configs/shapes.
ROWS: dict[str, str] = {
    "CLIP": "clip",
    "MaskCLIP": "maskclip",
    "SCLIP": "sclip",
    "CLIP-Surgery": "clip_surgery",
    "CLIP-Surgery, feature surgery": "clip_surgery_scores",
    "GEM": "gem",
    "ClearCLIP": "clearclip",
    "ClearCLIP + mask vote": "clearclip_vote",
    "NACLIP": "naclip",
    "NACLIP + PAMR": "naclip_pamr",
    "ResCLIP, first part": "resclip",
    "SC-CLIP": "scclip",
    "plain affinity": "vfm",
    "ProxyCLIP": "proxyclip",
    "ProxyCLIP, stitched values": "proxyclip_stitched",
    "CorrCLIP": "corrclip",
    "OV-Stitcher": "ov_stitcher",
}
#: Pictures that seconds and memory are measured on.
TIMED = 12
#: Rows whose labels the sheet shows, unless some are asked for, and of how many pictures.
SHOWN = ("CLIP", "ClearCLIP", "NACLIP + PAMR", "SC-CLIP", "ProxyCLIP", "CorrCLIP", "OV-Stitcher")
SHEET_IMAGES = 6


def main(arguments: Sequence[str] | None = None) -> None:
    """Test everything, then print and perhaps write the table and the sheet."""
    parser = experiments.make_parser(__doc__, "shapes_training_free", length=None)
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="some alone, in the sheet as well")
    args = parser.parse_args(arguments)
    if args.write and args.rows:
        parser.error("--write writes the whole table: leave out --rows")
    experiments.command("tools/dataset_converters/shapes.py", args.data)
    rows = {name: [row(args, ROWS[name])] for name in args.rows or ROWS}
    experiments.report(rows, [0], OUT if args.write else None)
    sheet = SHEET if args.write else args.work_dir / "sheet.png"
    print("pictures:", picture_sheet(args, args.rows or SHOWN, sheet))


def row(args: argparse.Namespace, config: str) -> Metrics:
    """What one config reaches, and what it costs a picture."""
    found = evaluate(config, args.work_dir / config, roots(args.data, "test"))
    return {**{name: found[name] for name in METRICS}, **costs(args, config)}


def costs(args: argparse.Namespace, config: str) -> Metrics:
    """Seconds (median) and MB at once of a picture, on one thread."""
    inferencer = OpenVocabSegInferencer(config_file(config))
    photos = pictures(args, TIMED)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        inferencer(photos[0], CLASSES)  # weights and words
        seconds = []
        for photo in photos:
            started = time.perf_counter()
            inferencer(photo, CLASSES)
            seconds.append(time.perf_counter() - started)
        peak = max(peak_mb(lambda photo=photo: inferencer(photo, CLASSES)) for photo in photos[:3])
    finally:
        torch.set_num_threads(threads)
    return {"seconds": float(np.median(seconds)), "peak_mb": peak}


def pictures(args: argparse.Namespace, count: int) -> list[str]:
    """The first test pictures."""
    return [str(path) for path in sorted((args.data / "images" / "val").glob("*.png"))[:count]]


def picture_sheet(args: argparse.Namespace, names: Sequence[str], out: Path) -> Path:
    """One row an image: the image, its labels, and the labels of some methods."""
    photos = pictures(args, SHEET_IMAGES)
    found: dict[str, list[Any]] = {}
    for name in names:
        inferencer = OpenVocabSegInferencer(config_file(ROWS[name]))
        found[name] = [result.labels for result in inferencer(photos, CLASSES)]
    rows = []
    for place, path in enumerate(photos):
        truth = args.data / "annotations" / "val" / f"{Path(path).stem}{LABEL_SUFFIX}"
        labels = [cv2.imread(str(truth), cv2.IMREAD_UNCHANGED), *(found[n][place] for n in names)]
        rows.append([cv2.imread(path)[..., ::-1], *labels])
    draw_sheet(rows, ["image", "ground truth", *names], CLASSES, PALETTE, out)
    return out


if __name__ == "__main__":
    run(main, None)
