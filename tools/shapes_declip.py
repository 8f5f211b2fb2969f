#!/usr/bin/env python
"""What DeCLIP's distillation does to the tiny CLIP of ShapeScenes, before and after.

python tools/shapes_declip.py           # trains, tests, prints; about 40 minutes on 2 cores
python tools/shapes_declip.py --write   # and results/shapes_declip.json, which docs/declip.md shows

Every step is a command of its own that a user could type. Finished ones are not repeated unless
their options change; delete the work folder after changing a config or the code.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmclipdis.apis.cli import run
from mmclipdis.apis.run import find_checkpoint, test
from mmclipdis.engine.results import write_results

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "shapes_declip.json"

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

Metrics = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and test everything, then print and perhaps write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/shapes"), help="generated world")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/shapes_declip"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the training")
    parser.add_argument("--iters", type=int, help="of every training; the configs' by default")
    parser.add_argument("--write", action="store_true", help="write results/shapes_declip.json")
    args = parser.parse_args(arguments)
    command("tools/dataset_converters/shapes.py", args.data)
    rows = {"plain": [dense_metrics(args, "plain", "")]}
    for name, options in DISTILLED.items():
        runs = [distil(args, name, options, seed) for seed in args.seeds]
        rows[name] = [
            dense_metrics(args, folder.name, find_checkpoint(str(folder))) for folder in runs
        ]
    for name, (config, distilled) in CATSEG_ROWS.items():
        rows[name] = [cat_seg(args, config, distilled, seed) for seed in args.seeds]
    table = {name: spread(runs) for name, runs in rows.items()}
    print(json.dumps(table, indent=2))
    if args.write:
        found = [dict(name=name, metrics=metrics) for name, metrics in table.items()]
        write_results(OUT, found, seeds=args.seeds)


def folder_of(args: argparse.Namespace, name: str, seed: int) -> Path:
    """Work folder of one training."""
    folder: Path = args.work_dir / f"{name.replace(' ', '_')}_{seed}"
    return folder


def distil(args: argparse.Namespace, name: str, options: Sequence[str], seed: int) -> Path:
    """Train a student; its work folder."""
    folder = folder_of(args, name, seed)
    data = [f"{loader}_dataloader.dataset.data_root={args.data}" for loader in ("train", "val")]
    train("declip_distill", folder, [*options, *data], seed, args.iters)
    return folder


def train(config: str, folder: Path, options: Sequence[str], seed: int, iters: int | None) -> None:
    """Run ``tools/train.py`` on a config of configs/shapes, unless it has been done."""
    options = [*options, f"randomness.seed={seed}"]
    if iters is not None:
        options += [f"train_cfg.max_iters={iters}", f"train_cfg.val_interval={iters}"]
    path = ROOT / "configs" / "shapes" / f"{config}.py"
    words = [str(path), "--work-dir", str(folder), "--cfg-options", *options]
    done = folder / "done.json"
    if done.exists() and json.loads(done.read_text()) == words:
        return
    command("tools/train.py", *words)
    done.write_text(json.dumps(words))


def dense_metrics(args: argparse.Namespace, name: str, checkpoint: str) -> Metrics:
    """Region accuracy and mIoU of a student, or of the tiny CLIP itself (``checkpoint=''``)."""
    folder = args.work_dir / name
    data = f"test_dataloader.dataset.data_root={args.data}"
    source = f"{{}}.init_cfg.checkpoint={checkpoint}"
    regions = ["model.encoder.readout=csa", "model.regions=('rois','maskpool')", data]
    if checkpoint:
        regions.append(source.format("model.encoder"))
    found = evaluate("regions", folder / "regions", regions)
    metrics = {name: found[key] for name, key in REGIONS.items()}
    for readout in ("csa", "qq"):
        options = [f"model.backbone.readout={readout}", "model.backbone.any_readout=True", data]
        if checkpoint:
            options.append(source.format("model.backbone"))
        metrics[f"mIoU_{readout}"] = evaluate("declip", folder / readout, options)["mIoU"]
    return metrics


def cat_seg(args: argparse.Namespace, config: str, distilled: bool, seed: int) -> Metrics:
    """Train CAT-Seg on the base classes, from a student or the tiny CLIP; test it on all."""
    folder = folder_of(args, f"{config} {'distilled' if distilled else 'plain'}", seed)
    options = [f"{loader}_dataloader.dataset.data_root={args.data}" for loader in ("train", "val")]
    if distilled:
        student = find_checkpoint(str(folder_of(args, "DeCLIP", seed)))
        options.append(f"model.image_encoder.init_cfg.checkpoint={student}")
    train(config, folder, options, seed, args.iters)
    options = [f"test_dataloader.dataset.data_root={args.data}"]
    found = evaluate(config, folder / "test", options, find_checkpoint(str(folder)))
    return {name: found[name] for name in CATSEG_METRICS}


def evaluate(config: str, folder: Path, options: Sequence[str], checkpoint: str = "") -> Metrics:
    """What ``tools/test.py`` measures, kept in ``folder``."""
    path = str(ROOT / "configs" / "shapes" / f"{config}.py")
    words = [path, *([checkpoint] if checkpoint else []), "--work-dir", str(folder)]
    words += ["--cfg-options", *options]
    kept = folder / "metrics.json"
    before = json.loads(kept.read_text()) if kept.exists() else {}
    if before.get("words") == words:
        found: Metrics = before["metrics"]
        return found
    print("$ python tools/test.py", *words, flush=True)
    metrics = {n: float(v) for n, v in test([*words, "log_level=ERROR"]).items()}
    kept.write_text(json.dumps({"words": words, "metrics": metrics}))
    print("  ", metrics, flush=True)
    return metrics


def command(script: str, *words: object) -> None:
    """Run a tool of this repository in a process of its own; stop if it fails."""
    line = [sys.executable, str(ROOT / script), *map(str, words)]
    print("$ python", script, *words, flush=True)
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore::UserWarning"}  # the mm libraries' own
    if subprocess.run(line, env=quiet, check=False).returncode:
        sys.exit(f"{script} failed; its message is above")


def spread(runs: Sequence[Metrics]) -> dict[str, Any]:
    """Mean and standard deviation (of the sample) of each metric; a single run as it is."""
    table: dict[str, Any] = {}
    for name in runs[0]:
        values = [metrics[name] for metrics in runs]
        if len(values) == 1:
            table[name] = round(values[0], 2)
        else:
            mean, std = statistics.mean(values), statistics.stdev(values)
            table[name] = {"mean": round(mean, 2), "std": round(std, 2)}
    return table


if __name__ == "__main__":
    run(main, None)
