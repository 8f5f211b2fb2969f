#!/usr/bin/env python
"""OV-DQUO on ShapeScenes: with boxes of unknown things and without, with text queries and without.

python tools/shapes_ovdquo.py           # trains, tests, prints; about 2 hours on 2 cores
python tools/shapes_ovdquo.py --write   # and results/shapes_ovdquo.json, which docs/ovdquo.md shows

Every step is a command of its own that a user could type. The pseudo boxes are proposals of the
F-ViT of tools/shapes_fvit.py, whose row of the table is read from results/shapes_fvit.json; the
DeCLIP students are those of tools/shapes_declip.py. What is not there is trained here. Finished
steps are not repeated unless their options change; delete the work folder after changing a config
or the code.
"""

from __future__ import annotations

import argparse
import json
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

OUT = RESULTS / "shapes_ovdquo.json"
#: Row -> config of configs/shapes, whether unknown things have boxes, more options.
ROWS: dict[str, tuple[str, bool, list[str]]] = {
    "OV-DQUO": ("ovdquo", True, []),
    "without unknowns": ("ovdquo", False, []),
    "without text queries": ("ovdquo", True, ["model.text_queries=False"]),
    "OV-DQUO DeCLIP": ("ovdquo_declip", True, []),
}
METRICS = {
    "AP50_base": "coco/base_ap50",
    "AP50_novel": "coco/novel_ap50",
    "AP50_all": "coco/bbox_mAP_50",
}
#: Things of this world are smaller than COCO's, and most proposals that are left by MEPU's filters
#: are parts of base things.
FILTERS = ["--min-area", "150", "--known-iou", "0.05", "--best", "1", "--refine"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and test everything, then print and perhaps write the table."""
    parser = experiments.make_parser(__doc__, "shapes_ovdquo")
    parser.add_argument(
        "--students", type=Path, default=Path("work_dirs/shapes_declip"), help="of DeCLIP"
    )
    parser.add_argument(
        "--fvit", type=Path, default=Path("work_dirs/shapes_fvit"), help="of shapes_fvit.py"
    )
    args = parser.parse_args(arguments)
    experiments.command("tools/dataset_converters/shapes.py", args.data)
    unknowns = pseudo_boxes(args)
    rows: dict[str, list[Metrics]] = {name: [] for name in ROWS}
    for seed in args.seeds:
        for name, (config, pseudo, more) in ROWS.items():
            folder: Path = args.work_dir / f"{name.replace(' ', '_')}_{seed}"
            if config == "ovdquo_declip":
                student = declip_student(args.students, args.data, args.iters, seed)
                more = [*more, f"model.backbone.encoder.init_cfg.checkpoint={student}"]
            file = [f"train_dataloader.dataset.pseudo_boxes={unknowns}"] if pseudo else []
            options = [*roots(args.data, "train"), *boxes(args.data, "val"), *length(args.iters)]
            experiments.train(config, folder, [*options, *file, *more], seed)
            test = [*boxes(args.data, "test"), *more]
            found = evaluate(config, folder / "test", test, find_checkpoint(str(folder)))
            rows[name].append({ours: 100 * found[theirs] for ours, theirs in METRICS.items()})
    fvit = json.loads((RESULTS / "shapes_fvit.json").read_text())["rows"]
    other = {"F-ViT": next(row["metrics"] for row in fvit if row["name"] == "fused")}
    experiments.report(rows, args.seeds, OUT if args.write else None, digits=1, others=other)


def pseudo_boxes(args: argparse.Namespace) -> Path:
    """The file of boxes of unknown things: proposals of an F-ViT that knows base classes alone."""
    out: Path = args.work_dir.absolute() / "pseudo_boxes.json"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        folder: Path = args.fvit / "fvit_0"
        options = [*roots(args.data, "train"), *boxes(args.data, "val")]
        experiments.train("fvit", folder, options, 0)
        experiments.command(
            "tools/dataset_converters/pseudo_boxes.py",
            experiments.config_file("fvit"),
            find_checkpoint(str(folder)),
            *("--out", out, *FILTERS, "--cfg-options", *roots(args.data, "train")),
        )
    return out


if __name__ == "__main__":
    run(main, None)
