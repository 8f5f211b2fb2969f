"""What a test writes a photo: under names that do not collide, whole, and counted at the end."""

from __future__ import annotations

import inspect
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmclipdis.utils.output_names import NamesSoFar, output_names
from mmclipdis.utils.whole_files import make_folder


@HOOKS.register_module()
class LabelMapNamesHook(Hook):
    """Tells metrics that write a file a photo (``names``) the photos of the test, and counts.

    So label maps keep the folders of the photos below the one that all share. Without this hook
    such a metric stops before it overwrites a file of another photo.
    """

    def before_test_epoch(self, runner: Runner) -> None:
        """Choose the names."""
        known = output_names(_photos(runner.test_dataloader.dataset))
        for names in _writers(runner):
            names.known = known

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say how many photos there were, and how many files of them were written.

        Raises:
            RuntimeError: fewer files than photos.
        """
        for names in _writers(runner):
            written = set().union(*all_gather_object(names.written))
            total = len(names.known)
            text = f"label maps of {len(written)} of {total} photos: {names.folder}"
            if len(written) < total:
                raise RuntimeError(f"{text}; the others were not predicted")
            runner.logger.info(text)


@HOOKS.register_module()
class PaintedPhotosHook(Hook):
    """Paints predictions over photos, into ``folder/PHOTO.png``, in the folders of the photos.

    mm's own hooks write all photos of one file name into one file. A picture gets its name when it
    is complete. Several processes: the first one paints its part, as mm's visualizers do.

    Args:
        folder: Where.
        interval: Every n-th batch is painted.
        score_thr: Boxes of lower scores are left out, by a detector.
    """

    def __init__(self, folder: str, interval: int = 1, score_thr: float | None = None) -> None:
        self.names = NamesSoFar(folder)
        self.folder, self.interval, self.score_thr = Path(folder), interval, score_thr

    def before_test_epoch(self, runner: Runner) -> None:
        """Choose the names."""
        make_folder(self.folder)
        self.names.known = output_names(_photos(runner.test_dataloader.dataset))

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Paint a batch."""
        if not is_main_process() or not self.every_n_inner_iters(batch_idx, self.interval):
            return
        for sample in outputs or ():
            self._paint(runner.visualizer, sample)

    def _paint(self, visualizer: Any, sample: Any) -> None:
        target = self.folder / self.names.of(sample.img_path)
        make_folder(target.parent)
        # mmcv chooses the format by the ending
        aside = target.with_name(f".{target.stem[:50]}.{secrets.token_hex(16)}.png")
        options: dict[str, Any] = {}
        if "pred_score_thr" in inspect.signature(visualizer.add_datasample).parameters:
            options = {} if self.score_thr is None else {"pred_score_thr": self.score_thr}
        photo = mmcv.imread(sample.img_path, channel_order="rgb")
        try:
            visualizer.add_datasample(
                "photo", photo, data_sample=sample, out_file=str(aside), **options
            )
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say how many photos were painted, and of how many."""
        every = f" (every {self.interval}th batch)" if self.interval > 1 else ""
        runner.logger.info(
            f"painted {len(self.names.written)} of {len(self.names.known)} photos{every}: "
            f"{self.folder}"
        )


def _photos(dataset: Any) -> Iterator[str]:
    """Paths of the photos of a data set of mm, without reading them; none of another data set."""
    for index in range(len(dataset) if hasattr(dataset, "get_data_info") else 0):
        info = dataset.get_data_info(index)
        path = info.get("img_path") if isinstance(info, dict) else None
        if path:
            yield str(path)


def _writers(runner: Runner) -> Iterator[NamesSoFar]:
    evaluator: Any = getattr(runner.test_loop, "evaluator", None)
    for metric in getattr(evaluator, "metrics", ()):
        names = getattr(metric, "names", None)
        if isinstance(names, NamesSoFar):
            yield names
