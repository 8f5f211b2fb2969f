"""Train loops that a resumed run continues exactly."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from mmengine.dist import get_rank
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmclipdis.engine.exact_loader import ExactDataLoader, exact_data_loader
from mmclipdis.engine.random_state import set_random_state


class _ExactLoop:
    """What both loops share: an exact loader, and the random state that a resume hands over."""

    dataloader: ExactDataLoader
    _endless: bool

    def __init__(
        self, runner: Runner, dataloader: DataLoader | dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(runner, self._build_loader(runner, dataloader), **kwargs)  # type: ignore[call-arg]

    def _build_loader(
        self, runner: Runner, dataloader: DataLoader | dict[str, Any]
    ) -> ExactDataLoader:
        self.random_state: dict[str, Any] | None = None
        self._dataloader_cfg = dataloader
        self._seed = runner.seed
        built = runner.build_dataloader(
            dataloader,
            seed=runner.seed,
            diff_rank_seed=runner._randomness_cfg.get("diff_rank_seed", False),
        )
        return exact_data_loader(built, runner.seed, get_rank(), self._endless)

    def _follow_seed(self, runner: Runner) -> None:
        """Rebuild the loader when the checkpoint brought another seed.

        Without a seed in the config, a resumed run draws a new one and builds its sampler with it
        before it has read the old one from the checkpoint.
        """
        if runner.seed != self._seed and isinstance(self._dataloader_cfg, dict):
            state = self.random_state
            self.dataloader = self._build_loader(runner, self._dataloader_cfg)
            self.random_state = state

    def _is_done(self, reached: int, end: int, unit: str, name: str) -> bool:
        """Whether a resumed run has nothing to train, which is said, as nothing else would."""
        runner: Runner = self.runner  # type: ignore[attr-defined]
        if not runner._resume or reached < end:
            return False
        runner.logger.warning(
            f"Nothing to train: the checkpoint is at {unit} {reached} of "
            f"train_cfg.{name}={end}. To go on, give a larger one: --resume --cfg-options "
            f"train_cfg.{name}=N; to measure it, use tools/test.py."
        )
        return True

    def _restore_random_state(self) -> None:
        if self.random_state is not None:
            set_random_state(self.random_state)
            self.random_state = None


class SkippableBatches:
    """The batches of an :class:`ExactDataLoader`, as the loops of both mmengines read them.

    mmengine 0.10.7 gets to its place by ``next()``, its maintained fork by :meth:`skip_iter`.
    """

    def __init__(self, batches: Generator[Any, None, None]) -> None:
        self._batches = batches
        self.close = batches.close

    def __iter__(self) -> SkippableBatches:
        return self

    def __next__(self) -> Any:
        return next(self._batches)

    def skip_iter(self, num_iters: int) -> None:
        """Pass by as many batches, which the loader was told to give as None, at no cost."""
        for _ in range(num_iters):
            next(self._batches)


@LOOPS.register_module()
class ExactIterBasedTrainLoop(_ExactLoop, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, with the same arguments, that resumes exactly.

    Its batches depend on the seed and the iteration alone (see :mod:`exact_loader`), so a resumed
    run skips those behind it without loading them. It does so with the fork's
    ``fast_forward_on_resume=True`` as well, which would start the data anew to save that time.
    """

    _endless = True

    def run(self) -> nn.Module:
        """Train from the current iteration to the last."""
        if self._is_done(self._iter, self._max_iters, "iteration", "max_iters"):
            return self.runner.model
        self._follow_seed(self.runner)
        self.dataloader.skip = self._iter
        self.dataloader_iterator = SkippableBatches(iter(self.dataloader))
        self.fast_forward_on_resume = False  # the fork's switch: to read on from the first batch
        try:
            return super().run()
        finally:
            self.dataloader_iterator.close()

    def run_iter(self, data_batch: Sequence[dict]) -> None:
        """Train one batch; the first after a resume starts from the saved random state."""
        self._restore_random_state()
        super().run_iter(data_batch)


@LOOPS.register_module()
class ExactEpochBasedTrainLoop(_ExactLoop, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, with the same arguments, that resumes exactly."""

    _endless = False

    def run(self) -> nn.Module:
        """Train from the current epoch to the last."""
        if self._is_done(self._epoch, self._max_epochs, "epoch", "max_epochs"):
            return self.runner.model
        self._follow_seed(self.runner)
        try:
            return super().run()
        finally:
            self.dataloader.stop_workers()

    def run_epoch(self) -> None:
        """Train one epoch."""
        self.dataloader.batches.first_position = self._epoch * len(self.dataloader)
        super().run_epoch()

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Train one batch; the first after a resume starts from the saved random state."""
        self._restore_random_state()
        super().run_iter(idx, data_batch)
