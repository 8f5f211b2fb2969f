"""Mean IoU over groups of classes, under mmseg's and detectron2's rule for absent classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmseg.evaluation.metrics import IoUMetric
from mmseg.registry import METRICS
from PIL import Image
from prettytable import PrettyTable
from torch import Tensor

from mmclipdis.evaluation.label_values import (
    check_background,
    check_ignored,
    labels_of,
    prediction_of,
    scored_classes,
)
from mmclipdis.utils.names import group_lists
from mmclipdis.utils.output_names import NamesSoFar
from mmclipdis.utils.whole_files import write_picture


@METRICS.register_module()
class OpenVocabIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric`` plus what open-vocabulary papers report.

    * ``mIoU_<group>`` for every group of classes: base, novel, stuff, things, ...
    * ``mIoU_present`` with ``present_only``: mean over the classes that occur in the ground truth
      (detectron2's rule, used by CAT-Seg). mmseg's ``mIoU`` also counts a class that was predicted
      somewhere but never occurs, with IoU 0. GT [0, 0, 1, 1] against prediction [0, 0, 1, 2]: 75.0
      against 50.0. The run prints a table of both, with the number of classes in each mean.
    * With ``background_from=k``, predictions from class k on count as class k, the background: the
      model may have several names for it (PAS-20b of CAT-Seg: k = 20, 59 names). The labels are
      0..k, and so are the label maps written to ``output_dir``.

    Pixels that the model gave no class (:func:`~mmclipdis.utils.labels.no_class`) are missed by the
    class that they have, and no class is charged with them. Ignored pixels count nowhere, whatever
    is predicted there; an image of only such pixels changes nothing.

    Different from ``IoUMetric``: pixel counts are integers (float32 sums lose pixels above 16.7
    million a class), labels outside the classes are an error that names the file and counts them
    instead of being dropped, a misspelt argument is an error instead of being ignored, and label
    maps with more than 255 classes are written as 16-bit PNG instead of wrapping around.

    Args:
        groups: names of classes by group, ``dict(base=('cat', ...), novel=(...))``; None takes
            ``groups`` of the data set's metainfo, if it has any.
        present_only: also report every mean under detectron2's rule.
        background_from: see above; None takes that of the data set's metainfo, if it has any.
        ignore_index, iou_metrics, nan_to_num, beta, collect_device, format_only, prefix: those of
            ``IoUMetric``.
        output_dir: folder for the predicted label maps, ``PHOTO_NAME.png``; with
            ``reduce_zero_label`` they are numbered from 1, as the labels are. Photos of one name in
            several folders are an error, unless ``LabelMapNamesHook`` (as in ``tools/test.py``)
            keeps their folders.
        keep_results: True or None; mmseg's ``test.py --out`` writes it. What is written stays.
    """

    dataset_meta: dict[str, Any]  # mmengine's property

    #: It says after the evaluation which classes are in no label.
    names_absent_classes = True

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]] | None = None,
        present_only: bool = False,
        ignore_index: int = 255,
        iou_metrics: Sequence[str] = ("mIoU",),
        nan_to_num: int | None = None,
        beta: int = 1,
        collect_device: str = "cpu",
        output_dir: str | None = None,
        format_only: bool = False,
        prefix: str | None = None,
        background_from: int | None = None,
        keep_results: bool | None = None,
    ) -> None:
        if keep_results not in (None, True):
            raise ValueError(
                f"keep_results={keep_results!r}: label maps in output_dir always stay; leave "
                "output_dir out to write none"
            )
        super().__init__(
            ignore_index=ignore_index,
            iou_metrics=[iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics),
            nan_to_num=nan_to_num,
            beta=beta,
            collect_device=collect_device,
            output_dir=output_dir,
            format_only=format_only,
            prefix=prefix,
        )
        self.names = NamesSoFar(output_dir)
        self.groups = None if groups is None else group_lists(groups, "groups of the metric")
        self.present_only = present_only
        self.background_from = check_background(background_from)

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Count intersections and unions of one batch, and write its predictions.

        Raises:
            ValueError: a label or prediction is no class of the data set; names the file. Or its
                label map would overwrite that of another photo.
        """
        names = self._class_names()
        num_classes, predictable = len(names), len(self.dataset_meta["classes"])
        if not self.format_only:
            check_ignored(self.ignore_index, names)
        for sample in data_samples:
            predicted = prediction_of(sample, num_classes, predictable)
            if not self.format_only:
                label = labels_of(sample, num_classes, self.ignore_index).to(predicted)
                self.results.append(
                    self.intersect_and_union(predicted, label, num_classes, self.ignore_index)
                )
            if self.output_dir is not None:
                shift = int(sample.get("reduce_zero_label") or False)
                kind = np.uint8 if num_classes + shift <= 255 else np.uint16
                # As in labels: 0 means unlabelled where the others are shifted, else the largest.
                unlabelled = 0 if shift else np.iinfo(kind).max
                values = predicted.cpu().numpy()
                shifted = np.where(values < 0, unlabelled, values + shift)
                picture = Image.fromarray(shifted.astype(kind))
                write_picture(Path(self.output_dir) / self.names.of(sample["img_path"]), picture)

    def _class_names(self) -> list[str]:
        return scored_classes(self.dataset_meta, self.background_from)

    @staticmethod
    def intersect_and_union(
        pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pixels a class (C,), float64 holding whole numbers: hit, union, predicted, labelled.

        A prediction of -1 is no class: it hits nothing and joins no union.
        """
        valid = label != ignore_index
        pred_label, label = pred_label[valid].long(), label[valid].long()

        def count(values: Tensor) -> Tensor:
            return torch.bincount(values, minlength=num_classes).double().cpu()

        hit, predicted = count(label[pred_label == label]), count(pred_label[pred_label >= 0])
        labelled = count(label)
        return hit, predicted + labelled - hit, predicted, labelled

    def compute_metrics(self, results: list[tuple[Tensor, ...]]) -> dict[str, float]:
        """Means in percent, rounded to two decimals as mmseg does; says which classes are absent.

        Raises:
            ValueError: no label map has a pixel that is not ignored.
        """
        if not self.format_only and results and not any(bool(r[-1].any()) for r in results):
            raise ValueError(
                f"every pixel of the {len(results)} label maps is {self.ignore_index}, ignored: "
                "there is nothing to score; check reduce_zero_label and the classes of the data "
                "set, and the label maps"
            )
        if not self.format_only:
            labelled, predicted = (
                torch.stack([r[i] for r in results]).sum(0).numpy() > 0 for i in (-1, -2)
            )
            self._name_absent(labelled, predicted)
        whole = self.dataset_meta
        self.dataset_meta = {**whole, "classes": self._class_names()}  # for the table of classes
        try:
            metrics: dict[str, float] = super().compute_metrics(results)
        finally:
            self.dataset_meta = whole
        if self.format_only or "mIoU" not in metrics:
            return metrics
        areas = [sum(area) for area in zip(*results, strict=True)]
        # nan for a class that is neither labelled nor predicted
        iou = self.total_area_to_metrics(*areas, ["mIoU"], self.nan_to_num)["IoU"]
        present = areas[-1].numpy() > 0
        counted = {"mIoU": int((~np.isnan(iou)).sum()), "mIoU_present": int(present.sum())}
        for name, members in {"": np.arange(len(iou)), **self._group_indices()}.items():
            suffix = f"_{name}" if name else ""
            metrics[f"mIoU{suffix}"] = _mean_percent(iou[members])
            if self.present_only:
                kept = members[present[members]]
                metrics[f"mIoU{suffix}_present"] = _mean_percent(iou[kept])
        if self.present_only:
            _print_both(metrics, counted, len(iou))
        return metrics

    def _name_absent(self, labelled: np.ndarray, predicted: np.ndarray) -> None:
        """Say which classes no label holds, and what becomes of them in the mean."""
        names = self._class_names()
        absent = np.flatnonzero(~labelled)
        if not len(absent):
            return
        wrong = [names[i] for i in absent if predicted[i]]
        text = (
            f"{len(absent)} of {len(names)} classes are in no label: "
            f"{', '.join(names[i] for i in absent[:8])}{', ...' if len(absent) > 8 else ''}; "
            f"{len(absent) - len(wrong)} of them are not in the mean"
        )
        if wrong:
            text += (
                f", and {len(wrong)} that {'was' if len(wrong) == 1 else 'were'} predicted "
                "somewhere count as 0 in mIoU (present_only=True leaves them out)"
            )
        print_log(text, logger="current", level=logging.WARNING)

    def metric_names(self) -> list[str]:
        """Names of the numbers that the metric gives."""
        of = {"mIoU": ["mAcc"], "mDice": ["mAcc"], "mFscore": ["mPrecision", "mRecall"]}
        names = ["aAcc", *self.metrics, *(other for kind in self.metrics for other in of[kind])]
        if "mIoU" in self.metrics:
            groups = self.groups
            if groups is None:
                groups = (self.dataset_meta or {}).get("groups") or {}
            names += [f"mIoU_{group}" for group in groups]
            if self.present_only:
                names += [f"{name}_present" for name in names if name.startswith("mIoU")]
        return names

    def _group_indices(self) -> dict[str, np.ndarray]:
        """Class indices of each group.

        A group of the configuration must name classes of the data set; one of the data set's own
        metainfo is reduced to the classes in use, and left out if none is.
        """
        classes = self._class_names()
        groups = self.groups
        if groups is None:
            groups = group_lists(self.dataset_meta.get("groups") or {}, "metainfo['groups']")
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


def _print_both(metrics: Mapping[str, float], counted: Mapping[str, int], classes: int) -> None:
    """Print the two means of one run next to each other, so that nobody compares unlike numbers."""
    table = PrettyTable(["metric", "mean over", "classes", "mIoU"], align="l")
    rules = {
        "mIoU": "classes labelled or predicted anywhere (mmseg's IoUMetric)",
        "mIoU_present": "classes labelled anywhere (detectron2; the published numbers of CAT-Seg)",
    }
    for name, rule in rules.items():
        table.add_row([name, rule, f"{counted[name]} of {classes}", f"{metrics[name]:.2f}"])
    print_log(f"the two rules for absent classes:\n{table.get_string()}", logger="current")


def _mean_percent(values: np.ndarray) -> float:
    """Mean over what is not nan, in percent; nan if nothing is."""
    values = values[~np.isnan(values)]
    return round(float(values.mean()) * 100, 2) if len(values) else float("nan")
