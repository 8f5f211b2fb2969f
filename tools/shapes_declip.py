#!/usr/bin/env python
"""What DeCLIP's distillation does to the tiny CLIP of ShapeScenes, before and after.

python tools/shapes_declip.py           # trains, tests, prints; about 40 minutes on 2 cores
python tools/shapes_declip.py --write   # and results/shapes_declip.json, which docs/declip.md shows

Every step is a command of its own that a user could type. Finished ones are not repeated unless
their options change; delete the work folder after changing a config or the code.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmclipdis.apis import experiments
from mmclipdis.apis.cli import run
from mmclipdis.apis.experiments import Metrics, evaluate, length, roots
from mmclipdis.apis.run import find_checkpoint
from mmclipdis.utils.places import RESULTS

OUT = RESULTS / "shapes_declip.json"

#: After the rows of DeCLIP's table 1: options of configs/shapes/declip_distill.py. All are read out
#: alike; the paper's "one feature" is the dense map of the ordinary last block.
DISTILLED = {
    "content only": ["model.context_loss=None", "model.vfms=[]"],
    "content + context on one feature": ["model.context_from=map"],
    "DeCLIP": [],
}
REGIONS = {
    "box_thing": "rois_thing_macc1",
    "box_stuff": "rois_stuff_macc1",
    "mask_thing": "maskpool_thing_macc1",
    "mask_stuff": "maskpool_stuff_macc1",
}
#: Row -> config of configs/shapes, whether it starts from the student of its seed.
CATSEG_ROWS = {
    "CAT-Seg plain": ("catseg", False),
    "CAT-Seg plain, csa": ("catseg_declip", False),
    "CAT-Seg DeCLIP": ("catseg_declip", True),
}
CATSEG_METRICS = ("mIoU", "mIoU_base", "mIoU_novel")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and test everything, then print and perhaps write the table."""
    args = experiments.make_parser(__doc__, "shapes_declip").parse_args(arguments)
    experiments.command("tools/dataset_converters/shapes.py", args.data)
    rows = {"plain": [dense_metrics(args, "plain", "")]}
    for name, options in DISTILLED.items():
        runs = [distil(args, name, options, seed) for seed in args.seeds]
        rows[name] = [
            dense_metrics(args, folder.name, find_checkpoint(str(folder))) for folder in runs
        ]
    for name, (config, distilled) in CATSEG_ROWS.items():
        rows[name] = [cat_seg(args, config, distilled, seed) for seed in args.seeds]
    experiments.report(rows, args.seeds, OUT if args.write else None)


def folder_of(args: argparse.Namespace, name: str, seed: int) -> Path:
    """Work folder of one training."""
    folder: Path = args.work_dir / f"{name.replace(' ', '_')}_{seed}"
    return folder


def distil(args: argparse.Namespace, name: str, options: Sequence[str], seed: int) -> Path:
    """Train a student; its work folder."""
    folder = folder_of(args, name, seed)
    options = [*options, *roots(args.data, "train", "val"), *length(args.iters)]
    experiments.train("declip_distill", folder, options, seed)
    return folder


def dense_metrics(args: argparse.Namespace, name: str, checkpoint: str) -> Metrics:
    """Region accuracy and mIoU of a student, or of the tiny CLIP itself (``checkpoint=''``)."""
    folder = args.work_dir / name
    data = roots(args.data, "test")
    source = f"{{}}.init_cfg.checkpoint={checkpoint}"
    regions = ["model.encoder.readout=csa", "model.regions=('rois','maskpool')", *data]
    if checkpoint:
        regions.append(source.format("model.encoder"))
    found = evaluate("regions", folder / "regions", regions)
    metrics = {name: found[key] for name, key in REGIONS.items()}
    for readout in ("csa", "qq"):
        options = [f"model.backbone.readout={readout}", "model.backbone.any_readout=True", *data]
        if checkpoint:
            options.append(source.format("model.backbone"))
        metrics[f"mIoU_{readout}"] = evaluate("declip", folder / readout, options)["mIoU"]
    return metrics


def cat_seg(args: argparse.Namespace, config: str, distilled: bool, seed: int) -> Metrics:
    """Train CAT-Seg on the base classes, from a student or the tiny CLIP; test it on all."""
    folder = folder_of(args, f"{config} {'distilled' if distilled else 'plain'}", seed)
    options = roots(args.data, "train", "val")
    if distilled:
        student = find_checkpoint(str(folder_of(args, "DeCLIP", seed)))
        options.append(f"model.image_encoder.init_cfg.checkpoint={student}")
    experiments.train(config, folder, [*options, *length(args.iters)], seed)
    checkpoint = find_checkpoint(str(folder))
    found = evaluate(config, folder / "test", roots(args.data, "test"), checkpoint)
    return {name: found[name] for name in CATSEG_METRICS}


if __name__ == "__main__":
    run(main, None)
