"""Mean IoU over groups of classes, under mmseg's and detectron2's rule for absent classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmseg.evaluation.metrics import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor


@METRICS.register_module()
class OpenVocabIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric`` plus what open-vocabulary papers report.

    * ``mIoU_<group>`` for every group of classes: base, novel, stuff, things, ...
    * ``mIoU_present`` with ``present_only``: mean over the classes that occur in the ground truth
      (detectron2's rule, used by CAT-Seg). mmseg's ``mIoU`` also counts a class that was predicted
      somewhere but never occurs, with IoU 0. GT [0, 0, 1, 1] against prediction [0, 0, 1, 2]: 75.0
      against 50.0.

    Different from ``IoUMetric``: pixel counts are integers (float32 sums lose pixels above 16.7
    million a class), and labels outside the classes are an error that names the file instead of
    being dropped.

    Args:
        groups: names of classes by group, ``dict(base=('cat', ...), novel=(...))``; None takes
            ``groups`` of the data set's metainfo, if it has any.
        present_only: also report every mean under detectron2's rule.
        **kwargs: those of ``IoUMetric``.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]] | None = None,
        present_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.groups = groups
        self.present_only = present_only

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Count intersections and unions of one batch.

        Raises:
            ValueError: a label or prediction is no class of the data set; names the file.
        """
        num_classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            if not self.format_only:
                self._check(sample, "gt_sem_seg", num_classes, "the label map", "seg_map_path")
            self._check(sample, "pred_sem_seg", num_classes, "the prediction for", "img_path")
        super().process(data_batch, data_samples)

    def _check(
        self, sample: Mapping[str, Any], field: str, num_classes: int, what: str, key: str
    ) -> None:
        values = torch.unique(sample[field]["data"])
        wrong = values[(values < 0) | (values >= num_classes)]
        if field == "gt_sem_seg":
            wrong = wrong[wrong != self.ignore_index]
        if len(wrong):
            where = sample.get(key) or sample.get("img_path") or "a sample"
            raise ValueError(
                f"{what} {where} holds the values {wrong.tolist()[:10]}, but the data set has "
                f"{num_classes} classes (0..{num_classes - 1}, ignored: {self.ignore_index}); "
                "check the classes and reduce_zero_label of the data set, and the vocabulary"
            )

    @staticmethod
    def intersect_and_union(
        pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pixels a class (C,), float64 holding whole numbers: hit, union, predicted, labelled."""
        valid = label != ignore_index
        pred_label, label = pred_label[valid].long(), label[valid].long()

        def count(values: Tensor) -> Tensor:
            return torch.bincount(values, minlength=num_classes).double().cpu()

        hit, predicted = count(label[pred_label == label]), count(pred_label)
        labelled = count(label)
        return hit, predicted + labelled - hit, predicted, labelled

    def compute_metrics(self, results: list[tuple[Tensor, ...]]) -> dict[str, float]:
        """Means in percent, rounded to two decimals as mmseg does."""
        metrics = super().compute_metrics(results)
        if self.format_only or "mIoU" not in metrics:
            return metrics
        hit, union, _, labelled = (sum(area).numpy() for area in zip(*results, strict=True))
        with np.errstate(invalid="ignore"):  # a class that is neither labelled nor predicted
            iou = hit / union
        if self.nan_to_num is not None:
            iou = np.nan_to_num(iou, nan=self.nan_to_num)
        present = labelled > 0
        for name, members in {"": np.arange(len(iou)), **self._group_indices()}.items():
            suffix = f"_{name}" if name else ""
            metrics[f"mIoU{suffix}"] = _mean_percent(iou[members])
            if self.present_only:
                kept = members[present[members]]
                metrics[f"mIoU{suffix}_present"] = _mean_percent(iou[kept])
        return metrics

    def _group_indices(self) -> dict[str, np.ndarray]:
        """Class indices of each group.

        A group of the configuration must name classes of the data set; one of the data set's own
        metainfo is reduced to the classes in use, and left out if none is.
        """
        classes = list(self.dataset_meta["classes"])
        groups = self.groups if self.groups is not None else self.dataset_meta.get("groups", {})
        indices = {}
        for name, members in groups.items():
            unknown = [member for member in members if member not in classes]
            if unknown and self.groups is not None:
                raise ValueError(
                    f"group {name!r} names {unknown}, which the data set does not have"
                )
            known = [classes.index(member) for member in members if member in classes]
            if known:
                indices[name] = np.array(known)
        return indices


def _mean_percent(values: np.ndarray) -> float:
    """Mean over what is not nan, in percent; nan if nothing is."""
    values = values[~np.isnan(values)]
    return round(float(values.mean()) * 100, 2) if len(values) else float("nan")
