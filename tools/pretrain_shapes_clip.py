"""Pretrains the tiny CLIP of ShapeScenes on image-caption pairs, exports it, and measures it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import torch

from mmclipdis.shapes.pairs import make_pairs
from mmclipdis.shapes.pretrain import Recipe, pretrain

CONFIGS = Path(__file__).parents[1] / 'mmclipdis' / 'clip' / 'model_configs'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/shapes_clip'))
    parser.add_argument('--pairs-dir', type=Path)
    for name, value in vars(Recipe()).items():
        parser.add_argument(f'--{name.replace("_", "-")}', type=type(value), default=value)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    recipe = Recipe(**{name: getattr(args, name) for name in vars(Recipe())})
    config = json.loads((CONFIGS / 'shapes-tiny.json').read_text())
    side = config['vision_cfg']['image_size']
    pairs = make_pairs(args.pairs_dir or args.work_dir / 'pairs', recipe.pairs, seed=recipe.seed, side=side, workers=2)
    pretrain(pairs, config, recipe, args.work_dir)


if __name__ == '__main__':
    main()
