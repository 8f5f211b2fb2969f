"""Segmentation class by class: how well each is found, and what it is taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS
from numpy.typing import NDArray

from mmclipdis.evaluation.class_files import ClassFiles
from mmclipdis.evaluation.label_values import (
    check_background,
    check_ignored,
    labels_of,
    prediction_of,
    scored_classes,
)
from mmclipdis.utils.names import group_lists


@METRICS.register_module()
class SegClassReport(BaseMetric):
    """Writes IoU, accuracy, precision and F1 of every class, and the confusion matrix.

    It stands beside the metric that gives the means::

        test_evaluator = [
            dict(type="IoUMetric"),
            dict(type="SegClassReport", per_class="classes.csv", confusion_matrix="matrix.png"),
        ]

    Rows of the matrix are labelled classes, columns predicted ones; the last column has the pixels
    that the model gave no class. Counts are pixels, ignored ones left out. A class that is neither
    labelled nor predicted has no IoU: its cells stay empty. In a training the files are those of
    the last validation.

    Args:
        per_class: CSV to write, one row a class, in percent.
        confusion_matrix: CSV (pixels) or picture (shares of each row) to write; several are a list.
        visualize: give the numbers and the picture to the backends of the visualizer, such as
            TensorBoard.
        ignore_index: label without class.
        background_from: see :class:`~mmclipdis.evaluation.OpenVocabIoUMetric`.
        collect_device, prefix: those of ``BaseMetric``.

    Raises:
        ValueError: nothing is to be written, or a file has an ending of another kind.
    """

    dataset_meta: dict[str, Any]  # mmengine's property
    default_prefix = "classes"  # without one mmengine warns

    def __init__(
        self,
        per_class: str | None = None,
        confusion_matrix: str | Sequence[str] | None = None,
        visualize: bool = False,
        ignore_index: int = 255,
        background_from: int | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.files = ClassFiles(per_class, confusion_matrix, visualize)
        self.ignore_index = ignore_index
        self.background_from = check_background(background_from)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count the pairs of labelled and predicted class of each image of a batch.

        Raises:
            ValueError: a label or prediction is no class of the data set; names the file.
        """
        names = scored_classes(self.dataset_meta, self.background_from)
        check_ignored(self.ignore_index, names)
        width, predictable = len(names) + 1, len(self.dataset_meta["classes"])
        for sample in data_samples:
            predicted = prediction_of(sample, len(names), predictable).long()
            labels = labels_of(sample, len(names), self.ignore_index).to(predicted)
            valid = labels != self.ignore_index
            pairs = labels[valid] * width + predicted[valid].remainder(width)  # -1: the last
            # few of the pairs of 847 classes are in an image
            found, counts = torch.unique(pairs, return_counts=True)
            self.results.append((found.cpu().numpy(), counts.cpu().numpy()))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Write the files; the numbers stand in them, none is returned."""
        names = scored_classes(self.dataset_meta, self.background_from)
        matrix = np.zeros((len(names), len(names) + 1), np.int64)
        for found, counts in results:
            matrix.reshape(-1)[found] += counts
        groups = group_lists(self.dataset_meta.get("groups") or {}, "metainfo['groups']")
        columns: dict[str, Any] = {}
        if groups:
            columns["groups"] = [
                " ".join(group for group, members in groups.items() if name in members)
                for name in names
            ]
        columns |= class_scores(matrix)
        self.files.write(
            columns, names, matrix, ("", "(no class)"), "pixels of each class, as predicted"
        )
        return {}

    def metric_names(self) -> list[str]:
        """Names of the numbers that the metric gives: none."""
        return []


def class_scores(matrix: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """``pixels``, and IoU, Acc (recall), Precision and F1 (C,) in percent.

    Args:
        matrix: Pixels (C, C + 1), labelled by predicted; the last column is of no class.
    """
    hit = np.diagonal(matrix).astype(np.float64)
    labelled, predicted = matrix.sum(1), matrix[:, :-1].sum(0)

    def share(part: NDArray[np.float64], whole: NDArray[Any]) -> NDArray[np.float64]:
        return np.where(whole > 0, 100 * part / np.maximum(whole, 1), np.nan)

    return {
        "pixels": labelled,
        "IoU": share(hit, labelled + predicted - hit),
        "Acc": share(hit, labelled),
        "Precision": share(hit, predicted),
        "F1": share(2 * hit, labelled + predicted),
    }
