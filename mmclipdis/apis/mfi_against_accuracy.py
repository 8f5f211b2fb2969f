"""Mean class cosine against mAP and mIoU over trained projectors: JSON and a picture."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmclipdis.apis.class_similarity import (
    NEGATIVE,
    POSITIVE,
    class_features,
    clip_of,
    read_classes,
    writable_folder,
)
from mmclipdis.apis.cli import UserInputError
from mmclipdis.clip.text.similarity import mean_off_diagonal
from mmclipdis.engine.checkpoint_files import newest_checkpoint
from mmclipdis.utils.whole_files import refuse_existing, write_text
from mmclipdis.visualization.curve import draw_scatter

FILES = ("mfi_against_accuracy.json", "mfi_against_accuracy.png")
#: Metrics that a point may have, by their keys in logs and results.
METRICS = ("mAP", "mIoU")
COSINE = "mean_cosine"


@dataclass(frozen=True)
class Point:
    """One model of the figure.

    Attributes:
        name: Beside its dot.
        accuracy: ``mAP``, ``mIoU`` or both, in percent.
        mean_cosine: Mean cosine of the texts of two classes; None where it is still to be measured.
        checkpoint: File of DCLIP's projectors; None is CLIP itself.
        source: Where it was read from.
    """

    name: str
    accuracy: dict[str, float]
    mean_cosine: float | None = None
    checkpoint: str | None = None
    source: str = ""


def mfi_against_accuracy(arguments: Sequence[str] | None = None) -> Path:
    """Measure and draw what the command line asks for; see ``tools/analysis_tools``.

    Returns:
        The folder with ``mfi_against_accuracy.json`` and ``mfi_against_accuracy.png``.

    Raises:
        FileExistsError: one of these is there.
        FileNotFoundError, UserInputError, ValueError: bad options, or folders and files without
            what a point needs.
    """
    args = _parser().parse_args(arguments)
    points = [point for source in args.sources for point in points_of(source)]
    unknown = [point for point in points if point.mean_cosine is None]
    if unknown and args.classes is None:
        raise UserInputError(
            f"{unknown[0].source}: the mean cosine of {unknown[0].name!r} is to be measured: name "
            "the classes, such as --classes ShapeScenesDataset or --classes voc20"
        )
    folder = writable_folder(args.out)
    for name in FILES:
        refuse_existing(folder / name, args.overwrite)
    points = [_measured(point, args) for point in _distinct(points)]
    panels = {m: _panel(points, m) for m in METRICS if _panel(points, m)}
    correlations = {metric: correlation(panel.values()) for metric, panel in panels.items()}
    settings = {
        "sources": args.sources,
        "classes": args.classes,
        "arch": args.arch,
        "clip": args.checkpoint,
        "template": args.template,
    }
    content = {
        "settings": settings,
        "definition": "mean_cosine: (sum of all cosines - M) / (M (M - 1)) of M positive class "
        "texts, raw; correlation: Pearson's, over the points",
        "points": [asdict(point) for point in points],
        "correlation": correlations,
    }
    write_text(folder / FILES[0], json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    notes = {m: _note(value, len(panels[m])) for m, value in correlations.items()}
    label = "mean cosine of the texts of two classes (MFI)"
    draw_scatter(panels, folder / FILES[1], label, notes)
    for point in points:
        values = ", ".join(f"{m} {v:.1f}" for m, v in point.accuracy.items())
        print(f"{point.name}: mean cosine {point.mean_cosine:.3f}, {values}")
    print(f"{folder / FILES[0]}, {folder / FILES[1]}")
    return folder


def points_of(source: str) -> list[Point]:
    """The points that a work folder or a file of results holds.

    Args:
        source: A work folder with checkpoints and, in it or below, logs of ``tools/test.py`` with
            mAP or mIoU; or a JSON with ``rows`` as in ``results/``, each a ``name``, ``metrics``
            (mAP, mIoU, mean_cosine: a number, or its mean) and perhaps a ``checkpoint``.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: nothing in it can be drawn.
    """
    path = Path(source)
    if path.is_file():
        return _points_in_results(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no work folder and no file of results at {source!r}")
    accuracy = accuracy_in(path)
    if not accuracy:
        raise ValueError(
            f"{source!r} holds no log of a test with {' or '.join(METRICS)}: run tools/test.py "
            f"CONFIG CHECKPOINT --work-dir {source}"
        )
    checkpoint = newest_checkpoint(str(path))
    if checkpoint is None:
        raise ValueError(f"no checkpoint in {source!r}: name the work folder of a training")
    return [Point(path.name, accuracy, checkpoint=checkpoint, source=source)]


def accuracy_in(folder: Path) -> dict[str, float]:
    """mAP and mIoU of the last tests whose logs lie in a folder or below.

    mmengine writes ``TIME/TIME.json`` for a test, a single object. Validation during a training
    is in other files, and not taken.
    """
    found: dict[str, float] = {}
    for log in sorted(folder.rglob("*.json"), key=lambda log: log.name):
        if log.stem != log.parent.name or not log.stem.replace("_", "").isdigit():
            continue
        try:
            content = json.loads(log.read_text(encoding="utf-8"))
        except ValueError:  # not one object: a log of several lines
            continue
        found |= _accuracy(content if isinstance(content, dict) else {})
    return found


def _points_in_results(path: Path) -> list[Point]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [(str(row["name"]), row["metrics"], row) for row in content["rows"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is no file of results: expected rows, each with name and metrics "
            f"({type(error).__name__}: {error})"
        ) from error
    points = []
    for name, metrics, row in rows:
        accuracy, cosine = _accuracy(metrics), _number(metrics.get(COSINE))
        checkpoint = row.get("checkpoint")
        if accuracy and (cosine is not None or checkpoint):
            points.append(Point(name, accuracy, cosine, checkpoint, str(path)))
    if not points:
        raise ValueError(
            f"{str(path)!r} has no row with {' or '.join(METRICS)}, and with {COSINE} or a "
            "checkpoint to measure it of"
        )
    return points


def _accuracy(metrics: Mapping[str, Any]) -> dict[str, float]:
    """mAP and mIoU of logged metrics."""
    numbers = {name: _number(metrics.get(name)) for name in METRICS}
    return {name: number for name, number in numbers.items() if number is not None}


def _number(value: Any) -> float | None:
    """A number, or the mean of ``{"mean": ..., "std": ...}``."""
    value = value.get("mean") if isinstance(value, Mapping) else value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and np.isfinite(value) else None


def _distinct(points: Iterable[Point]) -> list[Point]:
    """With different names: those of the second of two gets its number."""
    counts: dict[str, int] = {}
    found = []
    for point in points:
        counts[point.name] = number = counts.get(point.name, 0) + 1
        found.append(point if number == 1 else replace(point, name=f"{point.name} #{number}"))
    return found


def _measured(point: Point, args: argparse.Namespace) -> Point:
    """With its mean cosine, of the projected texts where there are projectors."""
    if point.mean_cosine is not None:
        return point
    vocabulary = read_classes(args.classes, args.template)
    arch, checkpoint = clip_of(args.arch, args.checkpoint)
    features = class_features(vocabulary, NEGATIVE, arch, checkpoint, point.checkpoint, args.device)
    positive, _ = features.get("projected", features["clip"])
    return replace(point, mean_cosine=float(mean_off_diagonal(positive)))


def _panel(points: Iterable[Point], metric: str) -> dict[str, tuple[float, float]]:
    return {
        point.name: (float(point.mean_cosine or 0.0), point.accuracy[metric])
        for point in points
        if metric in point.accuracy
    }


def correlation(points: Iterable[tuple[float, float]]) -> float | None:
    """Pearson's correlation of the two coordinates; None of fewer than three points, or a line."""
    values = np.array(list(points), dtype=np.float64)
    if len(values) < 3 or not values.std(axis=0).all():
        return None
    return float(np.corrcoef(values.T)[0, 1])


def _note(value: float | None, count: int) -> str:
    return f"{count} points" + ("" if value is None else f", correlation {value:+.2f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="work folders of trainings of DCLIP, with "
        "logs of tests in them; or files of results (results/shapes_dclip.json)")  # fmt: skip
    add("--classes", help="whose texts are compared, as for class_similarity.py; needed where the "
        "cosine is to be measured")  # fmt: skip
    add("--arch", help="open_clip name; default: the package's shapes-tiny")
    add("--checkpoint", help="weights of CLIP: a tag (openai) or a file")
    add("--template", default=POSITIVE, help=f"prompt with {{}}; default: {POSITIVE!r}")
    add("--device", help="cpu, cuda, cuda:1, ...; a GPU if there is one")
    add("--out", default="work_dirs/mfi_against_accuracy", help="folder to write into")
    add("--overwrite", action="store_true", help="replace what the folder holds of this tool")
    return parser
