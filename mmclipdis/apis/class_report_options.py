"""``--per-class`` and ``--confusion-matrix`` of ``tools/test.py``: reports beside the metrics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from mmclipdis.apis.cli import UserInputError
from mmclipdis.apis.test_options import DETECTION_METRICS, metrics_of, tests_detection, type_name
from mmclipdis.utils.whole_files import refuse_existing

_OPTIONS = "--per-class, --confusion-matrix and --tensorboard"


def report_classes(
    config: Config,
    per_class: str | None,
    confusion_matrix: Sequence[str] | None,
    overwrite: bool = False,
    visualize: bool = False,
) -> None:
    """Have a test write results by class, whatever its metrics are.

    Segmentation gets a ``SegClassReport`` beside its metrics, with their ``ignore_index``;
    detection a ``DetClassReport`` with their ``ann_file``; ``MultiLabelMetric`` writes its own.

    Args:
        config: Of the test; changed.
        per_class: CSV.
        confusion_matrix: CSV, pictures.
        overwrite: Replace files that are there.
        visualize: Give the results to the visualizer as well.

    Raises:
        FileExistsError: a file is there, and ``overwrite`` is not set.
        UserInputError: the config tests what has no such results.
    """
    for path in (*filter(None, [per_class]), *(confusion_matrix or ())):
        refuse_existing(path, overwrite)
    metrics = list(metrics_of(config))
    kinds = {type_name(metric): metric for metric in metrics}
    files: dict[str, Any] = {"per_class": per_class, "visualize": visualize}
    if confusion_matrix:
        files["confusion_matrix"] = list(confusion_matrix)
    if "MultiLabelMetric" in kinds:
        if confusion_matrix:
            raise UserInputError(
                "--confusion-matrix is for one class a pixel or a box, and this config tests "
                "several labels an image (MultiLabelMetric); take --per-class FILE.csv."
            )
        kinds["MultiLabelMetric"].update(per_class_file=per_class, visualize=visualize)
        return
    if "RegionAccuracy" in kinds:
        raise UserInputError(
            f"{_OPTIONS} are not for the classification of regions; set "
            "test_evaluator.per_class=True for a table in the log."
        )
    if tests_detection(config):
        report = {"type": "DetClassReport", "ann_file": _json_of(config, metrics), **files}
    else:
        first: Any = next((m for m in metrics if "ignore_index" in m), {})
        options = ("ignore_index", "background_from")
        shared = {key: first[key] for key in options if first.get(key) is not None}
        report = {"type": "SegClassReport", **shared, **files}
    config.test_evaluator = [*metrics, report]


def _json_of(config: Config, metrics: Sequence[Any]) -> str:
    """The annotations that the metrics of a detector read, or else its data set."""
    for metric in metrics:
        if type_name(metric) in DETECTION_METRICS and metric.get("ann_file"):
            return str(metric["ann_file"])
    dataset = config.test_dataloader.get("dataset") or {}
    if not dataset.get("ann_file"):
        raise UserInputError(
            f"{_OPTIONS} of a detector need a json: set test_evaluator.ann_file, as in mmdet."
        )
    return os.path.join(dataset.get("data_root") or "", dataset["ann_file"])
