"""Pretrains the tiny CLIP of ShapeScenes on image-caption pairs, exports it, and measures it.

Training and export, resumed after an interruption from the work folder::

    python tools/pretrain_shapes_clip.py --work-dir work_dirs/shapes_clip --overwrite

Zero-shot measures of the shipped weights, written to ``results/shapes_clip.json``::

    python tools/pretrain_shapes_clip.py --evaluate
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
import torch.distributed as dist
import torch.multiprocessing

from mmclipdis.apis.cli import run
from mmclipdis.clip.weights.loading import model_config
from mmclipdis.engine.results import write_results
from mmclipdis.shapes.pairs import make_pairs
from mmclipdis.shapes.pretrain import Recipe, pretrain
from mmclipdis.shapes.training import add_recipe, recipe_of
from mmclipdis.shapes.weights import ARCH, WEIGHTS_PATH, export_run, load_towers
from mmclipdis.shapes.zero_shot import zero_shot
from mmclipdis.utils.places import RESULTS
from mmclipdis.utils.whole_files import refuse_existing


def _train(rank: int, folder: Path, pairs_dir: Path, recipe: Recipe, meeting: str) -> None:
    """One process of the training."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    config = model_config(ARCH)
    side = config["vision_cfg"]["image_size"]
    pairs = make_pairs(pairs_dir, recipe.pairs, seed=recipe.seed, side=side, named=recipe.named)
    if recipe.processes > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=recipe.processes
        )
    pretrain(pairs, config, recipe, folder, rank)


def _evaluate(weights: Path, out: Path, count: int, seeds: list[int]) -> None:
    """Measures the weights once a seed and writes the mean as a table."""
    towers = load_towers(weights)
    runs = [zero_shot(*towers, count, seed) for seed in seeds]
    metrics = {name: round(sum(r[name] for r in runs) / len(runs), 2) for name in runs[0]}
    write_results(out, [{"name": ARCH, "metrics": metrics}], seeds=seeds)
    print(json.dumps(metrics))


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line; trains and exports, or evaluates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/shapes_clip"))
    parser.add_argument("--pairs-dir", type=Path, help="default: WORK_DIR/pairs")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_PATH, help="exported file")
    parser.add_argument("--overwrite", action="store_true", help="replace --weights")
    parser.add_argument("--evaluate", action="store_true", help="measure --weights, do not train")
    parser.add_argument("--out", type=Path, default=RESULTS / "shapes_clip.json")
    parser.add_argument("--count", type=int, default=500, help="pictures of a kind and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of --evaluate")
    add_recipe(parser, Recipe)
    args = parser.parse_args(arguments)
    if args.evaluate:
        _evaluate(args.weights, args.out, args.count, args.seeds)
        return
    recipe = recipe_of(args, Recipe)
    refuse_existing(args.weights, args.overwrite)
    pairs_dir = args.pairs_dir or args.work_dir / "pairs"
    side = model_config(ARCH)["vision_cfg"]["image_size"]
    make_pairs(
        *(pairs_dir, recipe.pairs),
        **dict(seed=recipe.seed, side=side, named=recipe.named, workers=recipe.processes),
    )
    with tempfile.TemporaryDirectory() as scratch:
        job = (args.work_dir, pairs_dir, recipe, f"{scratch}/meeting")
        torch.multiprocessing.spawn(_train, job, nprocs=recipe.processes)
    export_run(args.work_dir / "last.pt", args.weights)
    print(zero_shot(*load_towers(args.weights), count=200, seed=0))


if __name__ == "__main__":
    run(main, None)
