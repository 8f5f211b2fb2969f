#!/usr/bin/env python
"""What InfoCLIP adds to CAT-Seg on ShapeScenes, and what its parts do alone.

python tools/shapes_infoclip.py           # trains, tests, prints
python tools/shapes_infoclip.py --write   # and results/shapes_infoclip.json, which the docs show

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

OUT = RESULTS / "shapes_infoclip.json"

#: A relation without learnable module, which compression could not shape.
_FIXED = ["model.lpam.relation=cosine", "model.compression=None"]
#: Plain distillation: KL of CLIP's class probabilities, i.e. at its logit scale of 100; the weight
#: takes the factor temperature^2 back, with which the loss would be nothing beside the task's.
_PLAIN_KL = ["kind=kl", "temperature=0.01", "weight=10000."]
_TERMS = ("compression", "distillation")
#: Row -> config of configs/shapes and its options; after the paper's ablation. The last is ours:
#: encoders that learn a hundred times as fast as published may follow the transfer too far.
ROWS: dict[str, tuple[str, list[str]]] = {
    "CAT-Seg": ("catseg", []),
    "KL": ("infoclip", [*_FIXED, *(f"model.distillation.{option}" for option in _PLAIN_KL)]),
    "L_d": ("infoclip", _FIXED),
    "L_c + MSE": ("infoclip", ["model.distillation.kind=mse"]),
    "InfoCLIP": ("infoclip", []),
    "InfoCLIP, weights 0.1": ("infoclip", [f"model.{term}.weight=0.1" for term in _TERMS]),
}
METRICS = ("mIoU", "mIoU_base", "mIoU_novel")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and test everything, then print and perhaps write the table."""
    args = experiments.make_parser(__doc__, "shapes_infoclip").parse_args(arguments)
    experiments.command("tools/dataset_converters/shapes.py", args.data)
    rows = {
        name: [measure(args, name, config, options, seed) for seed in args.seeds]
        for name, (config, options) in ROWS.items()
    }
    experiments.report(rows, args.seeds, OUT if args.write else None)


def measure(
    args: argparse.Namespace, name: str, config: str, options: Sequence[str], seed: int
) -> Metrics:
    """Train on the base classes, test on all."""
    folder: Path = args.work_dir / f"{name.replace(' ', '_')}_{seed}"
    training = [*options, *roots(args.data, "train", "val"), *length(args.iters)]
    experiments.train(config, folder, training, seed)
    checkpoint = find_checkpoint(str(folder))
    testing = [*options, *roots(args.data, "test")]
    found = evaluate(config, folder / "test", testing, checkpoint)
    return {name: found[name] for name in METRICS}


if __name__ == "__main__":
    run(main, None)
