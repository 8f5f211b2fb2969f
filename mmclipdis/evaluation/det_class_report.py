"""Detection class by class: average precision of each, and what its boxes are taken for."""

from __future__ import annotations

import contextlib
import io
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from mmclipdis.evaluation.box_confusion import Boxes, box_pairs
from mmclipdis.evaluation.class_files import ClassFiles
from mmclipdis.utils.coco_boxes import check_coco
from mmclipdis.utils.coco_json import read_coco
from mmclipdis.utils.names import name_list

#: Detections an image that count: those of mmdet's metrics, and of LVIS.
MOST, MOST_LVIS = 1000, 300
Result = tuple[Any, NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


@METRICS.register_module()
class DetClassReport(BaseMetric):
    """Writes AP, AP50, AP75 and recall of every class, and the confusion matrix of the boxes.

    It stands beside the metric that gives the means::

        val_json = "data/annotations/val.json"
        test_evaluator = [
            dict(type="CocoMetric", ann_file=val_json, metric="bbox"),
            dict(type="DetClassReport", ann_file=val_json, per_class="classes.csv",
                 confusion_matrix="matrix.png"),
        ]

    Average precision is computed by pycocotools as in mmdet's metrics (by ``lvis`` where the json
    is LVIS's), over all detections; the matrix and ``recall`` are of those that score ``score_thr``
    or more and overlap by ``iou_thr``, see
    :func:`~mmclipdis.evaluation.box_confusion.box_pairs`. The last row has predictions where
    nothing is, the last column boxes that were missed. In a training the files are those of the
    last validation.

    Args:
        ann_file: json of COCO or LVIS; that of the data set.
        per_class: CSV to write, one row a class, in percent; a class without box has no numbers.
        confusion_matrix: CSV (boxes) or picture (shares of each row) to write; several are a list.
        visualize: give the numbers and the picture to the backends of the visualizer, such as
            TensorBoard.
        score_thr: least score of a prediction, for the matrix and for ``recall``.
        iou_thr: least intersection over union of a pair, for the same.
        collect_device, prefix: those of ``BaseMetric``.

    Raises:
        FileNotFoundError: no such json.
        ValueError: it is none, nothing is to be written, a file has an ending of another kind, or
            a threshold is out of range.
    """

    dataset_meta: dict[str, Any]  # mmengine's property
    default_prefix = "classes"  # without one mmengine warns

    def __init__(
        self,
        ann_file: str,
        per_class: str | None = None,
        confusion_matrix: str | Sequence[str] | None = None,
        visualize: bool = False,
        score_thr: float = 0.3,
        iou_thr: float = 0.5,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        for name, value in (("score_thr", score_thr), ("iou_thr", iou_thr)):
            if not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"{name} of DetClassReport must be in [0, 1], got {value!r}")
        self.files = ClassFiles(per_class, confusion_matrix, visualize)
        self.ann_file, self.score_thr, self.iou_thr = ann_file, score_thr, iou_thr
        self.content = read_coco(ann_file, "set ann_file of DetClassReport to that of the data set")

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep the predictions of a batch."""
        for sample in data_samples:
            found = sample["pred_instances"]
            self.results.append(
                (
                    sample["img_id"],
                    found["bboxes"].cpu().numpy().astype(np.float64).reshape(-1, 4),
                    found["scores"].cpu().numpy().astype(np.float64),
                    found["labels"].cpu().numpy().astype(np.int64),
                )
            )

    def compute_metrics(self, results: list[Result]) -> dict[str, float]:
        """Write the files; the numbers stand in them, none is returned.

        Raises:
            ValueError: the json lacks images or classes of the data set, or has odd boxes.
        """
        check_coco(self.content, self.ann_file)
        names = list(name_list(self.dataset_meta["classes"], "the data set's classes"))
        ids = self._category_ids(names)
        self._check_images(results)
        matrix, boxes, found = self._confusions(results, ids)
        columns: dict[str, Any] = {}
        for group in ("base", "novel"):
            members = self.dataset_meta.get(f"{group}_classes") or ()
            if members:
                columns.setdefault("group", [""] * len(names))
                for place, name in enumerate(names):
                    if name in members:
                        columns["group"][place] = group
        federated = any("neg_category_ids" in image for image in self.content["images"])
        average = _average_lvis if federated else _average_coco
        precision = average(self.content, as_coco(results, ids), ids)
        columns |= {"boxes": boxes, **_columns(precision, ids)}
        columns["recall"] = np.where(boxes > 0, 100 * found / np.maximum(boxes, 1), np.nan)
        title = f"boxes, score ≥ {self.score_thr:g}, IoU ≥ {self.iou_thr:g}"
        self.files.write(columns, names, matrix, ("(nothing)", "(missed)"), title)
        return {}

    def metric_names(self) -> list[str]:
        """Names of the numbers that the metric gives: none."""
        return []

    def _category_ids(self, names: Sequence[str]) -> list[int]:
        by_name = {category["name"]: category["id"] for category in self.content["categories"]}
        lacking = [name for name in names if name not in by_name]
        if lacking:
            raise ValueError(
                f"{self.ann_file} lacks {len(lacking)} of the {len(names)} classes of the data "
                f"set: {', '.join(map(repr, lacking[:5]))}; set ann_file of DetClassReport to that "
                "of the data set"
            )
        return [by_name[name] for name in names]

    def _check_images(self, results: Sequence[Result]) -> None:
        known = {image["id"] for image in self.content["images"]}
        lacking = [image for image, *_ in results if image not in known]
        if lacking:
            raise ValueError(
                f"{self.ann_file} lacks {len(lacking)} of the {len(results)} images of the data "
                f"set (id {lacking[0]!r}); set ann_file of DetClassReport to that of the data set"
            )

    def _confusions(
        self, results: Sequence[Result], ids: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Matrix (C + 1, C + 1), and boxes and found boxes (C,) of each class."""
        count = len(ids)
        matrix = np.zeros((count + 1, count + 1), np.int64)
        boxes, hits = np.zeros(count, np.int64), np.zeros(count, np.int64)
        places = {category: place for place, category in enumerate(ids)}
        notes: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for note in self.content["annotations"]:
            sound = note["area"] > 0 and min(note["bbox"][2:]) >= 1  # as mmdet's data sets
            if note["category_id"] in places and sound:
                notes[note["image_id"]].append(note)
        predictions: dict[Any, Any] = {image: found for image, *found in results}
        nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
        for image in self.content["images"]:
            labelled = _labelled(notes[image["id"]], places)
            corners, scores, labels = predictions.get(image["id"], nothing)
            kept = scores >= self.score_thr
            predicted = Boxes(corners[kept], labels[kept], np.zeros(int(kept.sum()), bool))
            judged = _judged(image, labelled, places)
            pairs, found = box_pairs(predicted, labelled, count, self.iou_thr, judged)
            np.add.at(matrix, (pairs[:, 0], pairs[:, 1]), 1)
            things = labelled.labels[~labelled.crowd]
            boxes += np.bincount(things, minlength=count)
            hits += np.bincount(things[found], minlength=count)
        return matrix, boxes, hits


def _labelled(notes: Sequence[Mapping[str, Any]], places: Mapping[int, int]) -> Boxes:
    corners = np.array([note["bbox"] for note in notes], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    labels = np.array([places[note["category_id"]] for note in notes], np.int64)
    return Boxes(corners, labels, np.array([bool(note["iscrowd"]) for note in notes], bool))


def _judged(
    image: Mapping[str, Any], labelled: Boxes, places: Mapping[int, int]
) -> set[int] | None:
    """Classes that were looked for in an image of LVIS; None: all."""
    if "neg_category_ids" not in image:
        return None
    absent = {places[i] for i in image["neg_category_ids"] if i in places}
    partly = {places[i] for i in image.get("not_exhaustive_category_ids", ()) if i in places}
    return (absent | set(labelled.labels.tolist())) - partly


def as_coco(results: Sequence[Result], ids: Sequence[int]) -> list[dict[str, Any]]:
    """Predictions in COCO's format of results."""
    return [
        {
            "image_id": image,
            "category_id": ids[label],
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
        }
        for image, corners, scores, labels in results
        for (left, top, right, bottom), score, label in zip(
            corners.tolist(), scores.tolist(), labels.tolist()
        )
    ]


def _average_coco(
    content: dict[str, Any], found: list[dict[str, Any]], ids: Sequence[int]
) -> NDArray[np.float64]:
    """Precision (10 IoUs, 101 recalls, C) of all areas, classes by ascending id; -1 for none."""
    with contextlib.redirect_stdout(io.StringIO()):  # its progress
        api = COCO()
        api.dataset = content
        api.createIndex()
        if not found:  # which loadRes does not take
            return _nothing_found(api, ids)
        evaluation = COCOeval(api, api.loadRes(found), "bbox")
        evaluation.params.catIds = list(ids)
        evaluation.params.maxDets = [MOST]
        evaluation.evaluate()
        evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, -1]
    return precision


def _nothing_found(api: Any, ids: Sequence[int]) -> NDArray[np.float64]:
    there = {note["category_id"] for note in api.dataset["annotations"] if not note["iscrowd"]}
    row = np.array([0.0 if category in there else -1.0 for category in sorted(ids)])
    return np.broadcast_to(row, (10, 101, len(ids)))


def _average_lvis(
    content: dict[str, Any], found: list[dict[str, Any]], ids: Sequence[int]
) -> NDArray[np.float64]:
    """As :func:`_average_coco`, of classes that were looked for in an image only.

    Raises:
        ImportError: the package is not there.
    """
    try:
        from lvis import LVIS, LVISEval, LVISResults
    except ImportError as error:
        raise ImportError(
            "DetClassReport needs the package lvis for a json of LVIS; run: pip install lvis"
        ) from error
    api = LVIS.__new__(LVIS)  # its constructor reads a file
    api.logger = logging.getLogger("lvis")
    api.dataset = content
    api._create_index()
    evaluation = LVISEval(api, LVISResults(api, found, max_dets=MOST_LVIS), "bbox")
    evaluation.params.cat_ids = sorted(ids)
    evaluation.evaluate()
    evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0]
    return precision


def _columns(precision: NDArray[np.float64], ids: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """AP, AP50 and AP75 (C,) in percent, in the order of ``ids``."""
    order = np.argsort(np.argsort(ids))
    precision = precision[:, :, order]

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        known = values > -1
        sums = np.where(known, values, 0).sum((0, 1))
        return np.where(known.any((0, 1)), 100 * sums / np.maximum(known.sum((0, 1)), 1), np.nan)

    return {
        "AP": mean(precision),
        "AP50": mean(precision[:1]),
        "AP75": mean(precision[5:6]),
    }
