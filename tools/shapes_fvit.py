#!/usr/bin/env python
"""F-ViT on ShapeScenes: boxes of base and novel things, with CLIP's score, the detector's, both.

python tools/shapes_fvit.py           # trains, tests, prints; about 80 minutes on 2 cores
python tools/shapes_fvit.py --write   # and results/shapes_fvit.json, which docs/fvit.md shows

Every step is a command of its own that a user could type. The DeCLIP students are those of
tools/shapes_declip.py, which are trained here if they are not there. Finished steps are not
repeated unless their options change; delete the work folder after changing a config or the code.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmclipdis.apis import experiments
from mmclipdis.apis.cli import run
from mmclipdis.apis.experiments import (
    Metrics,
    boxes,
    declip_student,
    evaluate,
    length,
    roots,
)
from mmclipdis.apis.run import find_checkpoint
from mmclipdis.utils.places import RESULTS

OUT = RESULTS / "shapes_fvit.json"

#: The detector of fvit.py with the readout that DeCLIP distils; its pyramid is the same.
CSA = ["model.backbone.encoder.readout=csa", "model.backbone.encoder.any_readout=True"]
#: Scores times the RPN's, which F-ViT does without.
OBJECTNESS = ["model.test_cfg.rcnn.objectness=1."]
#: Training -> config of configs/shapes, more options.
TRAININGS: dict[str, tuple[str, list[str]]] = {
    "fvit": ("fvit", []),
    "fvit_undistorted": ("fvit", ["train_dataloader.dataset.pipeline.2.prob=0.0"]),
    "fvit_declip": ("fvit_declip", []),
}
#: Row -> training, test_cfg.rcnn.score, more options of the test.
ROWS: dict[str, tuple[str, str, list[str]]] = {
    "VLM score": ("fvit", "vlm", []),
    "detector score": ("fvit", "detector", []),
    "fused": ("fvit", "fused", []),
    "fused x objectness": ("fvit", "fused", OBJECTNESS),
    "fused, csa": ("fvit", "fused", CSA),
    "detector score, undistorted": ("fvit_undistorted", "detector", []),
    "fused, undistorted": ("fvit_undistorted", "fused", []),
    "VLM score DeCLIP": ("fvit_declip", "vlm", []),
    "detector score DeCLIP": ("fvit_declip", "detector", []),
    "fused DeCLIP": ("fvit_declip", "fused", []),
    "fused x objectness DeCLIP": ("fvit_declip", "fused", OBJECTNESS),
}
METRICS = {
    "AP50_base": "coco/base_ap50",
    "AP50_novel": "coco/novel_ap50",
    "AP50_all": "coco/bbox_mAP_50",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and test everything, then print and perhaps write the table."""
    parser = experiments.make_parser(__doc__, "shapes_fvit")
    parser.add_argument(
        "--students", type=Path, default=Path("work_dirs/shapes_declip"), help="of DeCLIP"
    )
    args = parser.parse_args(arguments)
    experiments.command("tools/dataset_converters/shapes.py", args.data)
    rows: dict[str, list[Metrics]] = {name: [] for name in ROWS}
    for seed in args.seeds:
        for name, (training, score, more) in ROWS.items():
            folder = train(args, training, seed)
            options = [f"model.test_cfg.rcnn.score={score}", *more, *boxes(args.data, "test")]
            test = folder / name.replace(" ", "_")
            found = evaluate(TRAININGS[training][0], test, options, find_checkpoint(str(folder)))
            rows[name].append({ours: 100 * found[theirs] for ours, theirs in METRICS.items()})
    experiments.report(rows, args.seeds, OUT if args.write else None, digits=1)


def train(args: argparse.Namespace, training: str, seed: int) -> Path:
    """Train a detector on the boxes of base classes; its work folder."""
    folder: Path = args.work_dir / f"{training}_{seed}"
    config, more = TRAININGS[training]
    options = [*roots(args.data, "train"), *boxes(args.data, "val"), *length(args.iters), *more]
    if config == "fvit_declip":
        student = declip_student(args.students, args.data, args.iters, seed)
        options.append(f"model.backbone.encoder.init_cfg.checkpoint={student}")
    experiments.train(config, folder, options, seed)
    return folder


if __name__ == "__main__":
    run(main, None)
