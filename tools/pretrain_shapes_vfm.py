"""Pretrains the tiny vision foundation model of ShapeScenes without labels, exports, measures it.

Training and export, resumed after an interruption from the work folder::

    python tools/pretrain_shapes_vfm.py --work-dir work_dirs/shapes_vfm --overwrite

How well its patch features tell segments apart, beside other features, written to
``results/shapes_vfm.json``::

    python tools/pretrain_shapes_vfm.py --evaluate
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import torch

from mmclipdis.apis.cli import run
from mmclipdis.engine.results import write_results
from mmclipdis.shapes.training import add_recipe, recipe_of
from mmclipdis.shapes.vfm import WEIGHTS_PATH, export_vfm, load_vfm
from mmclipdis.shapes.vfm_eval import feature_makers, patch_separation, vfm_features
from mmclipdis.shapes.vfm_pretrain import VFMRecipe, make_pictures, pretrain_vfm
from mmclipdis.shapes.zero_shot import draw_scenes
from mmclipdis.utils.places import RESULTS
from mmclipdis.utils.whole_files import refuse_existing

CHECK_SCENES = 50  # measured after a training


def _evaluate(weights: Path, out: Path, count: int, seeds: list[int]) -> None:
    """Measures every kind of features on the same scenes and writes the means as a table."""
    scenes = [scene for seed in seeds for scene in draw_scenes(count, seed, single=False)]
    rows: list[dict[str, Any]] = []
    for name, features in feature_makers(load_vfm(weights)).items():
        measured = patch_separation(features, scenes)
        metrics = {key: round(value, 2) for key, value in measured.items()}
        rows.append({"name": name, "metrics": metrics})
        print(name, json.dumps(metrics))
    write_results(out, rows, seeds=seeds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line; trains and exports, or evaluates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/shapes_vfm"))
    parser.add_argument("--pictures-dir", type=Path, help="default: WORK_DIR/pictures")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_PATH, help="exported file")
    parser.add_argument("--overwrite", action="store_true", help="replace --weights")
    parser.add_argument("--evaluate", action="store_true", help="measure --weights, do not train")
    parser.add_argument("--out", type=Path, default=RESULTS / "shapes_vfm.json")
    parser.add_argument("--count", type=int, default=200, help="scenes of a seed")
    # not 0: the settings of the recipe were chosen on scenes of that seed
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="of --evaluate")
    parser.add_argument("--threads", type=int, default=1, help="of the training")
    add_recipe(parser, VFMRecipe)
    args = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(args.threads)
    if args.evaluate:
        _evaluate(args.weights, args.out, args.count, args.seeds)
        return
    recipe = recipe_of(args, VFMRecipe)
    refuse_existing(args.weights, args.overwrite)
    pictures_dir = args.pictures_dir or args.work_dir / "pictures"
    pictures = make_pictures(pictures_dir, recipe.pictures, seed=recipe.seed, workers=args.threads)
    pretrain_vfm(pictures, recipe, args.work_dir)
    export_vfm(args.work_dir / "last.pt", args.weights)
    scenes = draw_scenes(CHECK_SCENES, 0, single=False)
    print(patch_separation(vfm_features(load_vfm(args.weights)), scenes))


if __name__ == "__main__":
    run(main, None)
