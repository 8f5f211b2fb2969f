"""Looks at all data sets and metrics of a run before its first iteration."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from mmclipdis.engine.data_check import check_boxes, check_listed, parts_of, some
from mmclipdis.engine.label_check import compare, look_at_labels, turned_photos
from mmclipdis.engine.metric_check import check_evaluator, check_monitored
from mmclipdis.utils.names import check_metainfo
from mmclipdis.utils.photo_sizes import size_problem

#: Loops of a runner, and whether they train.
_LOOPS = (("_train_loop", True), ("_val_loop", False), ("_test_loop", False))


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Says before the first iteration what is wrong with the data, whoever wrote the data set.

    - Names of classes are lists of names.
    - All photos and label maps that are listed are there; what lies beside them is counted.
    - Some label maps are read: their values are classes, not all are ignored, and they have the
      sizes of their photos. From then on every photo is compared with its annotation when it is
      loaded, also by mmseg's and mmdet's own loaders.
    - There are boxes to learn from.
    - A metric's own annotations are those of the data; ``save_best`` names a metric there is.

    A training on more label maps than were read at the start is told after its first epoch which
    classes no label held.

    Raises:
        FileNotFoundError, ValueError: see above.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._unseen: np.ndarray | None = None
        self._classes: list[str] = []

    def before_run(self, runner: Any) -> None:
        """Check the loops that have been built; the others do not run."""
        for name, training in _LOOPS:
            loop = getattr(runner, name, None)
            if loop is None or isinstance(loop, Mapping):
                continue
            evaluator = getattr(loop, "evaluator", None)
            told = any(getattr(m, "names_absent_classes", False) for m in _metrics(evaluator))
            for dataset in parts_of(loop.dataloader.dataset):
                self._check(dataset, training, told)
            if evaluator is not None:
                check_evaluator(evaluator, list(parts_of(loop.dataloader.dataset)))
        check_monitored(runner)

    def _check(self, dataset: Any, training: bool, told: bool) -> None:
        name = type(dataset).__name__
        meta = getattr(dataset, "metainfo", None)
        if isinstance(meta, Mapping):
            check_metainfo(meta, name, twice=True)
        if not hasattr(dataset, "get_data_info"):
            return
        if not len(dataset):
            raise ValueError(
                f"{name}: no image is left of {getattr(dataset, 'ann_file', '')!r}: it is empty, "
                "or filter_cfg leaves all out (images without boxes of the classes in use, or "
                "smaller than min_size)"
            )
        for text in filter(None, self._look(dataset, training, told)):
            print_log(f"{name}: {text}", logger="current", level=logging.WARNING)
        watch_sizes(dataset)

    def _look(self, dataset: Any, training: bool, told: bool) -> Iterator[str]:
        """Warnings about one data set."""
        name = type(dataset).__name__
        items = None
        if not getattr(dataset, "files_checked", False):
            items = [dataset.get_data_info(place) for place in range(len(dataset))]
            yield from check_listed(dataset, items)
        counts = look_at_labels(dataset)
        if counts is not None:
            if problem := counts.problem():
                raise ValueError(f"{name}: {problem}")
            if not told and (warning := counts.warning()):
                yield warning
            if training and counts.maps < counts.of:
                self._classes, self._unseen = counts.classes, counts.pixels == 0
        if items and "instances" in items[0]:
            yield check_boxes(dataset, items, training)
        if (items and items[0].get("seg_map_path")) or (items and "instances" in items[0]):
            yield turned_photos([str(item["img_path"]) for item in items])

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note which classes the labels of a batch hold; say at the end of an epoch which none."""
        if self._unseen is None:
            return
        if self._unseen.any() and isinstance(data_batch, Mapping):
            for sample in data_batch.get("data_samples") or ():
                if "gt_sem_seg" in sample:
                    labels = sample.gt_sem_seg.data.reshape(-1).long().cpu()
                    size = max(len(self._unseen), int(labels.max()) + 1 if len(labels) else 0)
                    seen = torch.bincount(labels, minlength=size).numpy()[: len(self._unseen)] > 0
                    self._unseen &= ~seen
        if runner.iter + 1 >= len(runner.train_dataloader):
            everywhere = torch.from_numpy(self._unseen.astype(np.int64))
            all_reduce(everywhere, "min")  # unseen in every process
            absent = [name for name, n in zip(self._classes, everywhere.tolist()) if n]
            self._unseen = None
            if absent:
                print_log(
                    f"{len(absent)} of {len(self._classes)} classes were in no label of the first "
                    f"epoch, and nothing is learnt of them: {some(absent)}",
                    logger="current",
                    level=logging.WARNING,
                )


def _metrics(evaluator: Any) -> Sequence[Any]:
    return getattr(evaluator, "metrics", ())


class SizesAgree:
    """Transform: the photo has the size of its annotation, or an error names both."""

    def __init__(self, labels: bool) -> None:
        self.labels = labels

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` as they are.

        Raises:
            ValueError: The sizes differ.
        """
        if self.labels and results.get("gt_seg_map") is not None:
            compare(results, results["gt_seg_map"].shape)
        elif not self.labels and {"height", "width", "ori_shape"} <= results.keys():
            said = (results["height"], results["width"])
            loaded = tuple(results["ori_shape"][:2])
            problem = size_problem(str(results.get("img_path")), loaded, said, "its annotation")
            if problem:
                raise ValueError(problem)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(labels={self.labels})"


def watch_sizes(dataset: Any) -> None:
    """Have a data set compare each photo with its annotation right after they are loaded.

    mmseg's, mmdet's and mmcv's own loaders do not; ours do by themselves.
    """
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", None)
    if not isinstance(steps, list) or any(isinstance(step, SizesAgree) for step in steps):
        return
    for place in reversed(range(len(steps))):
        name = type(steps[place]).__name__
        if name == "LoadImageFromFile":
            steps.insert(place + 1, SizesAgree(labels=False))
        elif name == "LoadAnnotations" and hasattr(steps[place], "_load_seg_map"):
            steps.insert(place + 1, SizesAgree(labels=True))
