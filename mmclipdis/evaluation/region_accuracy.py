"""Mean accuracy over classes of region classification, for things and for stuff."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from numpy.typing import NDArray

from mmclipdis.utils.names import name_list


@METRICS.register_module()
class RegionAccuracy(BaseMetric):
    """DeCLIP's and CLIPSelf's mAcc in percent.

    For every kind of region that the model names (``rois``, ``maskpool``, ``crops``) the keys
    ``<kind>_thing_macc1``, ``<kind>_stuff_macc1`` and the same with ``macc5``; the released code
    calls them ``rois.thing.macc1`` and so on. A region counts for ``macc5`` where its class is
    among the five with the largest cosine. The mean is over the classes that have regions, each
    with the same weight, things and stuff apart; without any it is nan.

    The released code rounds the accuracy of each class to float16, at most 0.03 points. Not here.

    Args:
        per_class: also log a table of the accuracy of every class that has regions.
        collect_device, prefix: those of ``BaseMetric``.
    """

    TOP = (1, 5)

    def __init__(
        self, per_class: bool = False, collect_device: str = "cpu", prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.per_class = per_class

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Note for one batch which regions are right.

        Args:
            data_batch: not read.
            data_samples: with ``gt_regions.labels`` (n,) and ``pred_regions``: classes (n, k) by
                kind, best first.
        """
        for sample in data_samples:
            labels = sample["gt_regions"]["labels"].cpu()
            right = {}
            for kind, best in sample["pred_regions"].items():
                hit = best.cpu() == labels[:, None]
                right[kind] = np.stack([hit[:, :k].any(1).numpy() for k in self.TOP])
            self.results.append({"labels": labels.numpy(), "right": right})

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The means of all images.

        Raises:
            ValueError: the data set does not tell things from stuff.
        """
        isthing = self.dataset_meta.get("isthing") if self.dataset_meta else None
        if isthing is None:
            raise ValueError(
                "RegionAccuracy needs metainfo['isthing'] of the data set, a bool a class, as "
                "PanopticRegionsDataset has it"
            )
        things = np.asarray(isthing, dtype=bool)
        labels = np.concatenate([result["labels"] for result in results])
        self._name_absent(labels, len(things))
        metrics, columns = {}, {}
        for kind in sorted(results[0]["right"]):
            right = np.concatenate([result["right"][kind] for result in results], axis=1)
            for top, hits in zip(self.TOP, right):
                accuracy = class_accuracy(labels, hits, len(things))
                columns[f"{kind} top-{top}"] = accuracy
                for group, members in (("thing", things), ("stuff", ~things)):
                    metrics[f"{kind}_{group}_macc{top}"] = _mean(accuracy[members])
        if self.per_class:
            counts = np.bincount(labels, minlength=len(things))
            print_log(self._table(columns, counts), logger="current")
        return metrics

    def _name_absent(self, labels: NDArray[np.int64], num_classes: int) -> None:
        """Say how many classes have no region, and so are in no mean."""
        absent = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
        if len(absent):
            names = list(self.dataset_meta.get("classes") or range(num_classes))  # type: ignore
            listed = ", ".join(str(names[i]) for i in absent[:8])
            print_log(
                f"{len(absent)} of {num_classes} classes have no region and are in no mean: "
                f"{listed}{', ...' if len(absent) > 8 else ''}",
                logger="current",
                level=logging.WARNING,
            )

    def _table(self, columns: Mapping[str, NDArray[np.float64]], counts: NDArray[np.int64]) -> str:
        known = self.dataset_meta["classes"]  # type: ignore[index]
        classes = name_list(known, "metainfo['classes'] of the data set", twice=True)
        width = max(len(name) for name in classes)
        lines = [f"{'class':{width}}  regions  " + "  ".join(f"{c:>14}" for c in columns)]
        for index in np.flatnonzero(counts):
            cells = "  ".join(f"{values[index]:14.2f}" for values in columns.values())
            lines.append(f"{classes[index]:{width}}  {counts[index]:7d}  {cells}")
        return "\n".join(["accuracy of every class, in percent", *lines])


def class_accuracy(
    labels: NDArray[np.int64], right: NDArray[np.bool_], num_classes: int
) -> NDArray[np.float64]:
    """Percentage (C,) of the regions of each class that are right; nan for a class without.

    Args:
        labels: (n,) class of every region.
        right: (n,) whether it was found.
        num_classes: C.
    """
    counts = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels, weights=right, minlength=num_classes)
    return np.where(counts > 0, 100 * hits / np.maximum(counts, 1), np.nan)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
