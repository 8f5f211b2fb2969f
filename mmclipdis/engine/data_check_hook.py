"""Looks at all data sets and metrics of a run before its first iteration."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS, TRANSFORMS

from mmclipdis.engine.data_check import (
    check_boxes,
    check_listed,
    check_masks,
    mask_folders,
    parts_of,
    some,
)
from mmclipdis.engine.label_check import Presence, compare, look_at_labels, turned_photos
from mmclipdis.engine.metric_check import check_evaluator, check_hook_files, check_monitored
from mmclipdis.engine.moved_pixels import check_loops
from mmclipdis.engine.photos_alone import take_photos_alone
from mmclipdis.utils.names import check_metainfo

#: Loops of a runner.
_LOOPS = ("train", "val", "test")
#: Decoders of photos, and what a loader of mmcv is told.
_OF_PHOTOS = ("cv2", "pillow", "turbojpeg")
_OF_LOADER = ("to_float32", "color_type", "imdecode_backend", "ignore_empty", "backend_args")
#: What becomes of a class without labels in mmseg's own metric.
_SCORED = "these data: they are in no mean, or count as 0 where they were predicted"


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Says before the first iteration what is wrong with the data, whoever wrote the data set.

    - Names of classes are lists of names.
    - All photos and label maps that are listed are there; what lies beside them is counted. So are
      the files of masks that a model reads when it predicts.
    - Some label maps are read: their values are classes, not all are ignored, and they have the
      sizes of their photos. From then on every photo is compared with its annotation when it is
      loaded, and none above the limit of pixels is decoded, by stock loaders too
      (:func:`guard_loading`).
    - There are boxes to learn from.
    - A metric's own annotations are those of the data; ``save_best`` names a metric there is.

    - Pipelines for validation and testing that move pixels which nothing moves back are refused
      (:func:`~mmclipdis.engine.moved_pixels.check_test_pipeline`), and stock segmentors take photos
      one at a time (:mod:`~mmclipdis.engine.photos_alone`).

    Where there are more label maps than were read at the start, the first epoch of a training and
    an evaluation end with the names of classes that no label held.

    Raises:
        FileNotFoundError, ValueError: see above.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._watched: dict[str, Presence] = {}
        self._iterations = 0

    def before_run(self, runner: Any) -> None:
        """Check the loops that have been built; the others do not run."""
        check_loops(runner)
        take_photos_alone(runner)
        for phase in _LOOPS:
            loop = getattr(runner, f"_{phase}_loop", None)
            if loop is None or isinstance(loop, Mapping):
                continue
            evaluator = getattr(loop, "evaluator", None)
            told = any(getattr(m, "names_absent_classes", False) for m in _metrics(evaluator))
            masks = [] if phase == "train" else mask_folders(getattr(runner, "model", None))
            for dataset in parts_of(loop.dataloader.dataset):
                self._check(dataset, phase, told, masks)
            if evaluator is not None:
                check_evaluator(evaluator, list(parts_of(loop.dataloader.dataset)))
        check_monitored(runner)
        check_hook_files(getattr(runner, "cfg", None) or {})

    def _check(self, dataset: Any, phase: str, told: bool, masks: Sequence[Any] = ()) -> None:
        name = type(dataset).__name__
        guard_loading(getattr(getattr(dataset, "pipeline", None), "transforms", None))
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
        for text in filter(None, self._look(dataset, phase, told, masks)):
            print_log(f"{name}: {text}", logger="current", level=logging.WARNING)

    def _look(self, dataset: Any, phase: str, told: bool, masks: Sequence[Any]) -> Iterator[str]:
        """Warnings about one data set; ``told``: a metric will name classes without labels."""
        name = type(dataset).__name__
        items = [dataset.get_data_info(place) for place in range(len(dataset))]
        if not getattr(dataset, "files_checked", False):
            yield from check_listed(dataset, items)
        for folder in masks:
            check_masks(folder, items)
        counts = look_at_labels(dataset)
        if counts is not None:
            if problem := counts.problem():
                raise ValueError(f"{name}: {problem}")
            if not told and (warning := counts.warning()):
                yield warning
            if counts.maps < counts.of and not told:
                self._watch(phase, Presence(counts))
        if "instances" in items[0]:
            yield check_boxes(dataset, items, phase == "train")
        if counts is not None or "instances" in items[0]:
            photos = [str(item["img_path"]) for item in items]
            yield turned_photos(photos, pipeline=getattr(dataset, "pipeline", None))

    def _watch(self, phase: str, presence: Presence) -> None:
        other = self._watched.get(phase)
        if other is not None and other.classes == presence.classes:  # data sets that are joined
            presence.unseen &= other.unseen
        self._watched[phase] = presence

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note which classes the labels of a batch hold; say at the end of an epoch which none."""
        presence = self._watched.get("train")
        if presence is None:
            return
        presence.add(data_batch.get("data_samples") if isinstance(data_batch, Mapping) else ())
        self._iterations += 1  # not the runner's: it may have been resumed
        if self._iterations >= len(runner.train_dataloader):
            self._say_absent("train", "the first epoch, and nothing is learnt of them")

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note which classes the labels hold."""
        if "val" in self._watched:
            self._watched["val"].add(outputs)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Say which classes no label held."""
        self._say_absent("val", _SCORED)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note which classes the labels hold."""
        if "test" in self._watched:
            self._watched["test"].add(outputs)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Say which classes no label held."""
        self._say_absent("test", _SCORED)

    def _say_absent(self, phase: str, where: str) -> None:
        presence = self._watched.pop(phase, None)
        absent = presence.absent() if presence is not None else []
        if presence is not None and absent:
            print_log(
                f"{len(absent)} of {len(presence.classes)} classes were in no label of {where}: "
                f"{some(absent)}",
                logger="current",
                level=logging.WARNING,
            )


def _metrics(evaluator: Any) -> Sequence[Any]:
    return getattr(evaluator, "metrics", ())


class LabelsAgree:
    """Transform: the photo has the size of its label map, or an error names both."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` as they are.

        Raises:
            ValueError: The sizes differ.
        """
        if results.get("gt_seg_map") is not None:
            compare(results, results["gt_seg_map"].shape)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def guard_loading(steps: Any) -> None:
    """Have the steps of a built pipeline load as ours do, whoever wrote it.

    mmcv's ``LoadImageFromFile`` makes place for ``LoadReadableImage``, which gives the same
    pictures, but decodes none above the limit of pixels and none of another size than its
    annotation says. Behind mmseg's ``LoadAnnotations`` the sizes of photo and label map are
    compared; ours compares by itself. Pictures that are no photos (``tifffile``) are left alone.

    Args:
        steps: A list of transforms, changed in place; anything else is left as it is.
    """
    if not isinstance(steps, list) or any(isinstance(step, LabelsAgree) for step in steps):
        return
    for place in reversed(range(len(steps))):
        step = steps[place]
        name = type(step).__name__
        if name == "LoadImageFromFile" and step.imdecode_backend in _OF_PHOTOS:
            options = {key: getattr(step, key) for key in _OF_LOADER}
            steps[place] = TRANSFORMS.build({"type": "LoadReadableImage", **options})
        elif name == "LoadAnnotations" and hasattr(step, "_load_seg_map"):
            steps.insert(place + 1, LabelsAgree())
        for part in getattr(step, "subroutines", ()):  # of test-time augmentation
            guard_loading(getattr(part, "transforms", None))
