"""Mean average precision, and precision and recall by class and overall, of several labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, print_log
from mmengine.registry import METRICS
from numpy.typing import NDArray

from mmclipdis.evaluation.class_files import ClassFiles
from mmclipdis.evaluation.precision import average_precision, confusion, precision_recall
from mmclipdis.utils.names import name_list

ABSENT = ("skip", "zero")
#: Of the table of every class.
COLUMNS = ("AP", "precision", "recall", "F1")


@METRICS.register_module()
class MultiLabelMetric(BaseMetric):
    """The measures of multi-label recognition, in percent.

    * ``mAP``: mean over classes of the average precision with which ``pred_logit`` ranks the
      images. Not ``pred_score``: in float32 a sigmoid is exactly 1 from 17 on, which makes ties.
    * ``CP``, ``CR``, ``CF1``: means over classes of precision, recall and F1, each 0 for a class
      without a hit; ``CF1_h`` is the harmonic mean of CP and CR, which part of the literature
      calls CF1. A class is predicted where ``pred_score`` is above ``thr``.
    * ``OP``, ``OR``, ``OF1``: the same of the decisions of all classes together.
    * ``CP_top3`` and so on with ``topk=3``: the k classes with the highest logits are predicted
      (of equal ones the first), whatever their score.

    Labels of -1 (unknown) count nowhere.

    Args:
        thr: threshold on ``pred_score`` in [0, 1]; a score equal to it is no prediction.
        topk: also report decisions for the k best classes; one k or several.
        absent_classes: a class without a positive image has no average precision and no recall.
            ``'skip'`` leaves it out of the means over classes, ``'zero'`` counts it as 0, as the
            released code of DualCoOp does. The log names such classes.
        per_class: also log a table of every class.
        per_class_file: CSV to write with the same table, in percent.
        visualize: give the numbers of every class to the backends of the visualizer, such as
            TensorBoard.
        collect_device, prefix: those of ``BaseMetric``.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        thr: float = 0.5,
        topk: int | Sequence[int] | None = None,
        absent_classes: str = "skip",
        per_class: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
        per_class_file: str | None = None,
        visualize: bool = False,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not 0 <= thr <= 1:
            raise ValueError(f"thr must be in [0, 1], got {thr}")
        if absent_classes not in ABSENT:
            raise ValueError(f"absent_classes must be one of {ABSENT}, got {absent_classes!r}")
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk or ())
        if any(k < 1 for k in self.topk):
            raise ValueError(f"topk must be at least 1, got {topk}")
        self.thr = thr
        self.absent_classes = absent_classes
        self.per_class = per_class
        wanted = per_class_file is not None or visualize
        self.files = ClassFiles(per_class_file, None, visualize) if wanted else None

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep predictions and labels of one batch.

        Args:
            data_batch: not read.
            data_samples: with ``pred_logit``, ``pred_score`` and ``gt_score``, (N,) each.

        Raises:
            ValueError: a prediction is nan or infinite (names the images and, in training, the
                iteration), there are no labels, or more or fewer predictions than labels.
        """
        broken = []
        for sample in data_samples:
            if "gt_score" not in sample:
                raise ValueError(
                    f"{_name(sample)} has no gt_score, no labels to compare predictions with: end "
                    "the pipeline with dict(type='PackMultiLabelInputs')"
                )
            kept = {
                key: sample[key].detach().cpu().float().numpy()
                for key in ("pred_logit", "pred_score", "gt_score")
            }
            if len({values.shape for values in kept.values()}) > 1:
                raise ValueError(
                    f"{_name(sample)}: {len(kept['pred_logit'])} predictions for "
                    f"{len(kept['gt_score'])} labels; the model must have the classes of the data "
                    "set"
                )
            if not all(np.isfinite(kept[key]).all() for key in ("pred_logit", "pred_score")):
                broken.append(_name(sample))
            kept["gt_score"] = kept["gt_score"].astype(np.int8)
            self.results.append(kept)
        if broken:
            # Only a training knows its iteration.
            iteration = MessageHub.get_current_instance().get_info("iter")
            when = "" if iteration is None else f" after iteration {iteration + 1}"
            raise ValueError(
                f"the predictions{when} are nan or infinite for {len(broken)} of "
                f"{len(data_samples)} images of a batch: {', '.join(broken[:5])}"
                f"{', ...' if len(broken) > 5 else ''}; the weights are broken (take an earlier "
                "checkpoint), half precision overflowed (take fp32), or these files are odd"
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """All measures over all images.

        Raises:
            ValueError: ``topk`` is larger than the number of classes, or no class has a positive.
        """
        logits, scores, target = (
            np.stack([result[key] for result in results])
            for key in ("pred_logit", "pred_score", "gt_score")
        )
        num_classes = target.shape[1]
        if any(k > num_classes for k in self.topk):
            raise ValueError(f"topk={self.topk}, but there are {num_classes} classes")
        present = (target == 1).any(0)
        if not present.any():
            raise ValueError("no image of the data set is labelled with any class: no mAP")
        self._name_absent(present)
        counted = present if self.absent_classes == "skip" else np.ones(num_classes, bool)
        precisions = average_precision(logits, target)
        decided = confusion(scores > self.thr, target)
        metrics = {"mAP": 100 * float(np.nan_to_num(precisions[counted]).mean())}
        metrics |= summary(decided, counted)
        for k in self.topk:
            best = confusion(top_classes(logits, k), target)
            metrics |= {f"{key}_top{k}": value for key, value in summary(best, counted).items()}
        columns = (precisions, *precision_recall(*decided))
        images = (target == 1).sum(0)
        if self.per_class:
            print_log(self._table(columns, images), logger="current")
        if self.files is not None:
            named = {name: 100 * values for name, values in zip(COLUMNS, columns)}
            self.files.write({"images": images, **named}, self._names(num_classes))
        return metrics

    def metric_names(self) -> list[str]:
        """Names of the numbers that the metric gives."""
        keys = ("CP", "CR", "CF1", "CF1_h", "OP", "OR", "OF1")
        return ["mAP", *keys, *(f"{key}_top{k}" for k in self.topk for key in keys)]

    def _names(self, num_classes: int) -> list[str]:
        names = (self.dataset_meta or {}).get("classes")
        if not names:
            return [str(label) for label in range(num_classes)]
        return list(name_list(names, "metainfo['classes'] of the data set"))

    def _name_absent(self, present: NDArray[np.bool_]) -> None:
        if present.all():
            return
        absent = [name for name, there in zip(self._names(len(present)), present) if not there]
        fate = "left out of the means" if self.absent_classes == "skip" else "counted as 0"
        print_log(
            f"{len(absent)} of {len(present)} classes have no positive image and are {fate}: "
            f"{', '.join(absent)}",
            logger="current",
            level=logging.WARNING,
        )

    def _table(
        self, columns: Sequence[NDArray[np.float64]], counts: NDArray[np.signedinteger]
    ) -> str:
        names = self._names(len(counts))
        width = max(len(name) for name in ("class", *names))
        heads = "".join(f"{head:>11}" for head in COLUMNS)
        lines = [f"{'class':{width}}  images{heads}"]
        for index, name in enumerate(names):
            cells = "".join(f"{100 * column[index]:11.2f}" for column in columns)
            lines.append(f"{name:{width}}  {counts[index]:6d}{cells}")
        return "\n".join([f"every class, in percent; decisions above {self.thr}", *lines])


def _name(sample: Mapping[str, Any]) -> str:
    return str(sample.get("img_path", "an image without a path"))


def top_classes(logits: NDArray[np.floating], k: int) -> NDArray[np.bool_]:
    """Bool (M, N): the k classes of each image with the highest logits; of equal ones the first."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    chosen = np.zeros(logits.shape, bool)
    np.put_along_axis(chosen, best, True, 1)
    return chosen


def summary(
    counts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    counted: NDArray[np.bool_],
) -> dict[str, float]:
    """CP, CR, CF1, CF1_h, OP, OR and OF1 in percent.

    Args:
        counts: true positives, false positives and false negatives, (N,) each.
        counted: bool (N,), classes that the means over classes take in; OP, OR and OF1 take all.
    """
    by_class = [float(values[counted].mean()) for values in precision_recall(*counts)]
    overall = [float(value) for value in precision_recall(*(count.sum() for count in counts))]
    cp, cr, _ = by_class
    harmonic = 2 * cp * cr / (cp + cr) if cp + cr else 0.0
    keys = ("CP", "CR", "CF1", "CF1_h", "OP", "OR", "OF1")
    return {key: 100 * value for key, value in zip(keys, (*by_class, harmonic, *overall))}
