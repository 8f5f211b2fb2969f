"""What detectors find, beside the true boxes: a sheet with a photo a row."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmclipdis.apis.cfg_options import CfgOptions
from mmclipdis.apis.cli import DEBUG_VARIABLE, UserInputError, read_config
from mmclipdis.apis.segment import build_model, read_photo
from mmclipdis.utils.device import usable_device
from mmclipdis.utils.whole_files import refuse_existing
from mmclipdis.visualization import draw_sheet
from mmclipdis.visualization.boxes import draw_boxes

#: Of a photo, in pixels.
HEIGHT = 240
#: Boxes (n, 4), labels (n,) and what is written at them.
Boxes = tuple[np.ndarray, np.ndarray, list[str]]


def detection_sheet(arguments: Sequence[str] | None = None) -> Path:
    """Draw the sheet that the command line asks for; see ``tools/analysis_tools``.

    Raises:
        FileExistsError: the file is there.
        UserInputError, ValueError, FileNotFoundError: bad options, configs or checkpoints, or
            detectors of other classes than the first one's.
    """
    args = _parser().parse_args(arguments)
    if args.debug:
        os.environ[DEBUG_VARIABLE] = "1"
    refuse_existing(args.out, args.overwrite)
    if len(args.models) % 2:
        raise UserInputError(
            f"{len(args.models)} files: each detector is a CONFIG followed by its CHECKPOINT"
        )
    pairs = list(zip(args.models[::2], args.models[1::2], strict=True))
    titles = args.titles.split(",") if args.titles else [Path(config).stem for config, _ in pairs]
    if len(titles) != len(pairs):
        raise UserInputError(f"--titles has {len(titles)} names for {len(pairs)} detectors")
    configs = [_config(args, config) for config, _ in pairs]
    dataset = _test_data(configs[0])
    names = list(dataset.metainfo["classes"])
    infos = [dataset.get_data_info(place) for place in _places(args.photos, len(dataset))]
    photos = [read_photo(info["img_path"]) for info in infos]
    truth = [_truth(info, names) for info in infos]
    columns = [photos, _drawn(photos, truth, names)]
    for config, (_, checkpoint) in zip(configs, pairs, strict=True):
        model = _detector(config, checkpoint, args.device, dataset.metainfo)
        found = [
            _found(model, info["img_path"], len(boxes), args.score)
            for info, (boxes, _, _) in zip(infos, truth, strict=True)
        ]
        columns.append(_drawn(photos, [_named(each, names) for each in found], names))
    rows = list(zip(*columns, strict=True))
    return draw_sheet(rows, ["photo", "true", *titles], [], [], args.out, cell_height=HEIGHT)


def _config(args: argparse.Namespace, path: str) -> Config:
    options = argparse.Namespace(
        config=path, cfg_options=args.cfg_options, work_dir=None, launcher="none"
    )
    config = read_config(options, ("model", "test_dataloader"))
    if config.get("default_scope") != "mmdet":
        raise UserInputError(
            f"config {path!r} finds no boxes: its default_scope is "
            f"{config.get('default_scope')!r}, that of detectors is 'mmdet'"
        )
    return config


def _test_data(config: Config) -> Any:
    from mmdet.registry import DATASETS

    init_default_scope("mmdet")
    return DATASETS.build(config.test_dataloader.dataset)


def _places(count: int, length: int) -> list[int]:
    """Places of so many photos, evenly spread over the data."""
    places: list[int] = np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
    return places


def _truth(info: Any, names: Sequence[str]) -> Boxes:
    labelled = [box for box in info["instances"] if box["bbox_label"] >= 0]
    boxes = np.array([box["bbox"] for box in labelled], dtype=np.float32).reshape(-1, 4)
    labels = np.array([box["bbox_label"] for box in labelled], dtype=int)
    return boxes, labels, [names[label] for label in labels]


def _detector(
    config: Config, checkpoint: str, device: str | None, metainfo: Mapping[str, Any]
) -> Any:
    """The detector, which looks for the data's classes if it takes any names."""
    model = build_model(config, checkpoint).to(usable_device(device)).eval()
    model.cfg = config  # where mmdet's inference looks for the pipeline
    if hasattr(model, "set_vocabulary"):
        model.set_vocabulary(list(metainfo["classes"]), metainfo.get("novel_classes"))
    return model


def _found(model: Any, path: str, count: int, score: float | None) -> Any:
    """Predictions for a photo: those of at least ``score``, or the ``count`` surest."""
    from mmdet.apis import inference_detector

    instances = inference_detector(model, path).pred_instances.cpu()
    order = instances.scores.argsort(descending=True)
    kept = order[:count] if score is None else order[instances.scores[order] >= score]
    return instances[kept]


def _named(instances: Any, names: Sequence[str]) -> Boxes:
    """With labels by the data's classes.

    Raises:
        ValueError: the detector has other classes.
    """
    called = instances.label_names if "label_names" in instances else None
    if called is None:
        called = [
            names[label] if label < len(names) else label for label in instances.labels.tolist()
        ]
    words = [str(word) for word in called]
    if unknown := sorted(set(words) - set(names)):
        raise ValueError(
            f"the detector finds the class {unknown[0]!r}, which the first config's test data do "
            "not have: give detectors of the same classes"
        )
    texts = [f"{word} {score:.2f}" for word, score in zip(words, instances.scores.tolist())]
    return instances.bboxes.numpy(), np.array([names.index(word) for word in words], int), texts


def _drawn(
    photos: Sequence[np.ndarray], found: Sequence[Boxes], names: Sequence[str]
) -> list[np.ndarray]:
    """Pictures of one height, or letters on small photos would hide things."""
    drawn = []
    for photo, (boxes, labels, texts) in zip(photos, found, strict=True):
        scale = HEIGHT / len(photo)
        large = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        drawn.append(draw_boxes(large, boxes * scale, labels, texts, len(names)))
    return drawn


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="detection_sheet.py",
        description="Draw what detectors find beside the true boxes of test photos.",
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="CONFIG CHECKPOINT", help="one or several detectors; the "
        "photos are those of the first config's test_dataloader")  # fmt: skip
    add("--out", type=Path, required=True, help="picture to write")
    add("--titles", help="of the detectors, with commas between (default: the configs' names)")
    add("--photos", type=_count, default=4, help="how many (default: %(default)s)")
    add("--score", type=float, help="draw all boxes of at least this score")
    add("--device", help="such as cuda:0 or cpu; a GPU if there is one")
    add("--overwrite", action="store_true", help="replace the file")
    add("--cfg-options", nargs="+", action=CfgOptions, help="settings that replace those of every "
        "config")  # fmt: skip
    add("--debug", action="store_true", help=f"show tracebacks (or set {DEBUG_VARIABLE}=1)")
    return parser
