#!/usr/bin/env python
"""What DCLIP makes of the tiny CLIP of ShapeScenes: labels of images, classes apart, segmentation.

python tools/shapes_dclip.py           # trains, tests, prints; about 4 minutes on 2 cores
python tools/shapes_dclip.py --write   # and results/shapes_dclip.json, which docs/dclip.md shows

Every step is a command of its own that a user could type. Finished ones are not repeated unless
their options change; delete the work folder after changing a config or the code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmclipdis.apis import experiments
from mmclipdis.apis.class_similarity import class_similarity
from mmclipdis.apis.cli import run
from mmclipdis.apis.experiments import Metrics, evaluate, roots
from mmclipdis.apis.run import find_checkpoint
from mmclipdis.evaluation.precision import average_precision
from mmclipdis.models.recognition.pooling import spatial_logits
from mmclipdis.utils.places import RESULTS

OUT = RESULTS / "shapes_dclip.json"

#: Row -> options of configs/shapes/dclip.py.
TRAINED = {"ASL": ["model.mfi=None"], "ASL + MFI": []}
SEGMENTATION = ("mIoU", "mIoU_things", "mIoU_stuff")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and test everything, then print and perhaps write the table."""
    args = experiments.make_parser(__doc__, "shapes_dclip", length="epochs").parse_args(arguments)
    experiments.command("tools/dataset_converters/shapes.py", args.data)
    rows = {"CLIP": [zero_shot(args)], "CLIP, pooled as DCLIP": [pooled(args)]}
    for name, options in TRAINED.items():
        rows[name] = [trained(args, name, options, seed) for seed in args.seeds]
    experiments.report(rows, args.seeds, OUT if args.write else None, digits=3)


def zero_shot(args: argparse.Namespace) -> Metrics:
    """The tiny CLIP as it is: its embedding of the whole picture, its dense map."""
    folder = args.work_dir / "clip"
    found = evaluate("dclip_zero_shot", folder / "labels", roots(args.data, "test"))
    return {"mAP": found["mAP"], **classes(args, folder, "")}


@torch.no_grad()
def pooled(args: argparse.Namespace) -> Metrics:
    """The tiny CLIP scored as DCLIP scores, tokens against both prompts, without projectors."""
    config = Config.fromfile(experiments.config_file("dclip"))
    config.test_dataloader.dataset.data_root = str(args.data)
    loader = Runner.build_dataloader(config.test_dataloader)
    model = MODELS.build(config.model).eval()
    model.init_weights()
    model.set_vocabulary(loader.dataset.metainfo["classes"])
    logits, labels = [], []
    for batch in loader:
        inputs = model.data_preprocessor(batch)
        scores = spatial_logits(model.tokens(inputs["inputs"]), model.text.embeddings())
        logits.append(scores[:, 1] - scores[:, 0])
        labels += [sample.gt_score for sample in inputs["data_samples"]]
    found = average_precision(torch.cat(logits).numpy(), torch.stack(labels).numpy())
    return {"mAP": 100 * float(np.nanmean(found))}


def trained(args: argparse.Namespace, name: str, options: Sequence[str], seed: int) -> Metrics:
    """Train projectors, then test them on labels, classes and segmentation."""
    folder: Path = args.work_dir / f"{name.replace(' ', '')}_{seed}"
    options = [*options, *roots(args.data, "train", "val")]
    if args.epochs is not None:
        options += [f"train_cfg.max_epochs={args.epochs}", f"train_cfg.val_interval={args.epochs}"]
        options += [f"default_hooks.checkpoint.interval={args.epochs}"]
    features = ["--cache-features", str(args.work_dir / "features")]  # the losses are the same
    experiments.train("dclip", folder, options, seed, features)
    checkpoint = find_checkpoint(str(folder))
    found = evaluate("dclip", folder / "labels", roots(args.data, "test"), checkpoint)
    return {"mAP": found["mAP"], **classes(args, folder, checkpoint)}


def classes(args: argparse.Namespace, folder: Path, projectors: str) -> Metrics:
    """Mean cosine between the texts of two classes, and mIoU, with projectors or without."""
    words = ["ShapeScenesDataset", "--overwrite", "--out", str(folder / "similarity")]
    words += ["--projectors", projectors] if projectors else []
    report = json.loads((class_similarity(words) / "similarity.json").read_text())
    cosine = report["projected" if projectors else "clip"]["mean_offdiag"]
    options = [*roots(args.data, "test"), f"model.decode_head.projector={projectors or None}"]
    found = evaluate("dclip_segment", folder / "segmentation", options)
    return {"mean_cosine": float(cosine), **{name: found[name] for name in SEGMENTATION}}


if __name__ == "__main__":
    run(main, None)
