"""Boxes of things without a name: proposals, filtered and weighed, in a file to learn from."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from mmclipdis.apis.cli import read_config
from mmclipdis.apis.part_file import PartFile
from mmclipdis.apis.proposal_source import (
    Detector,
    Proposals,
    batches_of,
    known_boxes,
    read_proposals,
    training_data,
)
from mmclipdis.apis.proposal_weights import Weigher, fit_weigher
from mmclipdis.apis.pseudo_box_options import parse_options
from mmclipdis.datasets.detection.proposals import ProposalFilters, best_of_all, keep_proposals
from mmclipdis.utils.whole_files import refuse_existing, write_bytes

Record = dict[str, Any]


def pseudo_boxes(arguments: Sequence[str] | None = None) -> Path:
    """Make a file of pseudo boxes; see ``tools/dataset_converters/pseudo_boxes.py``.

    Raises:
        FileExistsError: the file is there, or a part of one with other options.
        UserInputError, ValueError, FileNotFoundError: options, data, model or proposals that do
            not go together; no proposal that is left.
    """
    args = parse_options(arguments)
    refuse_existing(args.out, args.overwrite)
    config = read_config(args, ("model", "train_dataloader"))
    filters = ProposalFilters(**{name: getattr(args, name) for name in asdict(ProposalFilters())})
    dataset = training_data(config)
    part = PartFile(
        args.out.with_name(args.out.name + ".part"), _options(args, config, filters), args.overwrite
    )
    try:
        ids = [dataset.get_data_info(index)["img_id"] for index in range(len(dataset))]
        todo = [index for index, number in enumerate(ids) if number not in part.records]
        if part.records:
            print(f"{len(part.records):,} of {len(dataset):,} images are done already")
        for records in _records(args, config, dataset, todo, filters) if todo else ():
            part.add(records)
    finally:
        part.close()
    finish(args.out, list(part.records.values()), filters.best, args.overwrite)
    part.remove()
    return Path(args.out)


def _records(
    args: argparse.Namespace,
    config: Config,
    dataset: Any,
    todo: Sequence[int],
    filters: ProposalFilters,
) -> Iterator[list[Record]]:
    """What is left of each image's proposals, a batch at a time."""
    listed: dict[Any, Proposals] | None = None
    if args.proposals is not None:
        every = (dataset.get_data_info(index) for index in range(len(dataset)))
        sizes = {info["img_id"]: (info["height"], info["width"]) for info in every}
        weigh = args.weight == "objectness"
        listed, others = read_proposals(args.proposals, sizes, weigh)
        if others:
            print(f"{args.proposals}: {others:,} proposals are of images that the data do not have")
    detector, weigher = None, None
    if listed is None or args.weight == "density":
        density = args.weight == "density"
        classes = dataset.metainfo["classes"] if args.refine else None
        detector = Detector(config, args.checkpoint, args.device, listed is None, density, classes)
        if density:
            weigher = fit_weigher(
                detector, dataset, args.fit_images, args.explained, args.seed, *_loading(args)
            )
    for indices, data in batches_of(dataset, todo, *_loading(args), photos=detector is not None):
        infos = [dataset.get_data_info(index) for index in indices]
        found: list[Proposals] = []
        dense: Tensor | None = None
        samples: list[Any] = []
        if detector is not None:
            found, dense, samples = detector.look(data)
        if listed is not None:
            none = torch.zeros(0, 4), torch.zeros(0)
            found = [listed.get(info["img_id"], none) for info in infos]
        records, boxes = [], []
        for info, (of_image, scores) in zip(infos, found, strict=True):
            size = info["height"], info["width"]
            places, gone = keep_proposals(of_image, scores, known_boxes(info), size, filters)
            boxes.append(of_image[places])
            records.append(_record(info["img_id"], of_image[places], scores[places], gone))
        if weigher is not None and detector is not None and dense is not None:
            _weigh(records, boxes, weigher, detector.centres(dense, boxes, samples))
        yield records


def _record(number: Any, boxes: Tensor, scores: Tensor, gone: Mapping[str, int]) -> Record:
    corners = boxes.double()
    sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    return {
        "image_id": number,
        "boxes": np.round(sides.numpy(), 2).tolist(),
        "scores": scores.double().tolist(),
        "weights": scores.double().clamp(0, 1).tolist(),
        "gone": dict(gone),
    }


def _weigh(
    records: Sequence[Record], boxes: Sequence[Tensor], weigher: Weigher, features: Tensor
) -> None:
    """Replace the weights, which are objectness, by the two-density estimate."""
    counts = list(map(len, boxes))
    weights = weigher.weights(features, torch.cat(list(boxes)))
    for record, part in zip(records, np.split(weights, np.cumsum(counts)[:-1]), strict=True):
        record["weights"] = part.tolist()


def finish(out: Path, records: Sequence[Record], best: float, overwrite: bool) -> None:
    """Take the best share of all boxes, write the file, and say what it holds.

    Raises:
        ValueError: there is no box.
    """
    gone: Counter[str] = Counter()
    rows = []
    for record in records:
        gone.update(record["gone"])
        for box, score, weight in zip(record["boxes"], record["scores"], record["weights"]):
            rows.append((score, record["image_id"], box, weight))
    lost = ", ".join(f"{number:,} {why}" for why, number in gone.items() if number) or "none"
    if not rows:
        raise ValueError(
            f"no proposal is left of {sum(gone.values()):,} in {len(records):,} images ({lost}): "
            "give other limits (--min-area, --max-aspect, --known-iou)"
        )
    chosen = best_of_all(torch.tensor([row[0] for row in rows], dtype=torch.float64), best)
    kept = [rows[place] for place in chosen.tolist()]
    content = [
        {
            "image_id": number,
            "bbox": box,
            "category_id": -1,
            "pseudo": 1,
            "weight": round(weight, 6),
        }
        for _, number, box, weight in kept
    ]
    write_bytes(out, json.dumps(content).encode(), overwrite)
    weights = [record["weight"] for record in content]
    print(
        f"{out}: {len(content):,} pseudo boxes in {len({row[1] for row in kept}):,} of "
        f"{len(records):,} images, weights {min(weights):.2f} to {max(weights):.2f}, mean "
        f"{sum(weights) / len(weights):.2f}; the best of {len(rows):,}; left out before: {lost}"
    )


def _options(args: argparse.Namespace, config: Config, filters: ProposalFilters) -> dict[str, Any]:
    """What the records of the images depend on."""
    shown = config.get("test_dataloader") or config.get("val_dataloader") or {}
    parts = {
        "model": config.model,
        "data": config.train_dataloader.dataset,
        "pipeline": (shown.get("dataset") or {}).get("pipeline"),
    }
    found: dict[str, Any] = {
        f"config ({name})": hashlib.sha256(repr(part).encode()).hexdigest()
        for name, part in parts.items()
    }
    for name in ("checkpoint", "proposals"):
        path = getattr(args, name)
        status = os.stat(path) if path and os.path.exists(path) else None
        found[name] = [path and str(path), status and [status.st_size, status.st_mtime_ns]]
    found |= {name: value for name, value in asdict(filters).items() if name != "best"}
    names = (
        "weight",
        "refine",
        *(("explained", "fit_images", "seed") if args.weight == "density" else ()),
    )
    return found | {name: getattr(args, name) for name in names}


def _loading(args: argparse.Namespace) -> tuple[int, int]:
    return args.batch_size, args.workers
