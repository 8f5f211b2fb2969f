"""What detectors find, beside the true boxes: a sheet with a photo a row."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from mmclipdis.apis.cli import DEBUG_VARIABLE, UserInputError
from mmclipdis.datasets.loading import LoadReadableImage
from mmclipdis.engine.configs import read_config_file
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
    dataset = _test_data(_config(pairs[0][0], args.cfg_options))
    names = list(dataset.metainfo["classes"])
    infos = [dataset.get_data_info(place) for place in _places(args.photos, len(dataset))]
    photos = [_photo(info["img_path"]) for info in infos]
    truth = [_truth(info, names) for info in infos]
    columns = [photos, _drawn(photos, truth, names)]
    for config, checkpoint in pairs:
        found = _found(
            _config(config, args.cfg_options), checkpoint, args.device, infos, truth, args.score
        )
        columns.append(_drawn(photos, [_named(each, names) for each in found], names))
    rows = list(zip(*columns, strict=True))
    return draw_sheet(rows, ["photo", "true", *titles], [], [], args.out, cell_height=HEIGHT)


def _config(path: str, options: Any) -> Config:
    config = read_config_file(path)
    config.merge_from_dict(options or {})
    return config


def _test_data(config: Config) -> Any:
    from mmdet.registry import DATASETS

    init_default_scope("mmdet")
    return DATASETS.build(config.test_dataloader.dataset)


def _places(count: int, length: int) -> list[int]:
    """Places of so many photos, evenly spread over the data."""
    places: list[int] = np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
    return places


def _photo(path: str) -> np.ndarray:
    """RGB uint8 (H, W, 3)."""
    loaded: dict[str, Any] = {"img_path": path}
    LoadReadableImage().transform(loaded)
    return np.ascontiguousarray(loaded["img"][..., ::-1])


def _truth(info: Any, names: Sequence[str]) -> Boxes:
    labelled = [box for box in info["instances"] if box["bbox_label"] >= 0]
    boxes = np.array([box["bbox"] for box in labelled], dtype=np.float32).reshape(-1, 4)
    labels = np.array([box["bbox_label"] for box in labelled], dtype=int)
    return boxes, labels, [names[label] for label in labels]


def _found(
    config: Config,
    checkpoint: str,
    device: str | None,
    infos: Sequence[Any],
    truth: Sequence[Boxes],
    score: float | None,
) -> list[Any]:
    """Predictions of a detector: those above a score, or as many as are true."""
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(config, checkpoint, device=str(usable_device(device)))
    found = []
    for info, (boxes, _, _) in zip(infos, truth, strict=True):
        instances = inference_detector(model, info["img_path"]).pred_instances.cpu()
        order = instances.scores.argsort(descending=True)
        kept = order[: len(boxes)] if score is None else order[instances.scores[order] >= score]
        found.append(instances[kept])
    return found


def _named(instances: Any, names: Sequence[str]) -> Boxes:
    """With labels by the data's classes.

    Raises:
        ValueError: the detector has other classes.
    """
    called = instances.label_names if "label_names" in instances else None
    labels = instances.labels.numpy()
    words = list(called) if called is not None else [names[label] for label in labels]
    if unknown := set(words) - set(names):
        raise ValueError(
            f"the detector finds {sorted(unknown)[0]!r}, which is no class of the first config's "
            "test data: give detectors of the same classes"
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
    add("--cfg-options", nargs="+", action=DictAction, help="settings that replace those of every "
        "config")  # fmt: skip
    add("--debug", action="store_true", help=f"show tracebacks (or set {DEBUG_VARIABLE}=1)")
    return parser
