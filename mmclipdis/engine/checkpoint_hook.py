"""A checkpoint hook that never loses the last checkpoint and resumes exactly."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.fileio import get_file_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from mmclipdis.engine import checkpoint_io as _checkpoint_io  # noqa: F401  (registers its backend)
from mmclipdis.engine.checkpoint_files import newest_checkpoint
from mmclipdis.engine.plain import (
    pack_message_hub,
    to_plain,
    unpack_message_hub,
    without_functions,
    without_odd_values,
)
from mmclipdis.engine.random_state import get_random_state, set_random_state
from mmclipdis.engine.resumed_schedule import ResumedSchedule
from mmclipdis.engine.work_folder import FolderLock, lock_work_folder
from mmclipdis.utils.finite import check_writable, constant_infinities, saved_entries

RANDOM_STATES = "random_states"


class _LateRemoval:
    """A file backend that keeps what it is told to remove until :meth:`finish`."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._files: list[str] = []
        self._folders: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._files.append(path)

    def rmtree(self, path: str) -> None:
        self._folders.append(path)

    def finish(self, keep: set[str]) -> None:
        for path in self._files:
            if path not in keep:
                self._backend.remove(path)
        for path in self._folders:
            if path not in keep:
                self._backend.rmtree(path)


@HOOKS.register_module()
class ExactCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with the same arguments, made safe and exact.

    - A file is written aside and renamed, so a killed run leaves no half checkpoint.
    - The old checkpoint is removed after the new one has been written.
    - Files hold tensors, numbers and strings only: ``torch.load(weights_only=True)`` reads them.
    - A checkpoint with NaN or infinity is refused, and the one before stays.
    - ``resume=True`` takes the newest whole file of the work folder itself
      (:func:`~mmclipdis.engine.checkpoint_files.newest_checkpoint`), and a schedule that the config
      has changed since is followed from there (:mod:`~mmclipdis.engine.resumed_schedule`).
    - Two runs cannot train in one work folder at once, and what a killed save left is removed.
    - The random states of all ranks are saved, and validation does not change them, so that with
      ``ExactIterBasedTrainLoop`` or ``ExactEpochBasedTrainLoop`` a resumed run equals an
      uninterrupted one to the last bit on the same machine and number of ranks.
    """

    backend_args: dict[str, Any] | None
    file_backend: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._random_states: list[dict[str, Any]] | None = None
        self._before_val: dict[str, Any] | None = None
        self._constant: set[str] = set()
        self._schedule: ResumedSchedule | None = None
        self._lock: FolderLock | None = None

    def before_run(self, runner: Runner) -> None:
        """Take the work folder for this training, and find what to resume from in it.

        Raises:
            ValueError: another process trains in it, or none of its checkpoints can be read.
        """
        if not isinstance(runner._train_loop, BaseLoop):  # built by train() only
            return
        self._lock = lock_work_folder(runner.work_dir)
        if runner._resume and runner._load_from is None:
            runner._load_from = newest_checkpoint(runner.work_dir)

    def after_run(self, runner: Runner) -> None:
        """Leave the work folder to others."""
        self._lock = None

    def before_train(self, runner: Runner) -> None:
        """Choose atomic writing for local folders, and warn where a resume cannot be exact."""
        if self.backend_args is None and self.file_client_args is None:
            backend = get_file_backend(str(self.out_dir or runner.work_dir))
            if isinstance(backend, LocalBackend):
                self.backend_args = {"backend": "atomic_local"}
        super().before_train(runner)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._constant = constant_infinities(model)
        if self._schedule is not None:
            self._schedule.follow(runner)
            self._schedule = None
        if not self.by_epoch and isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.logger.warning(
                "Checkpoints by iteration in an epoch-based loop resume at the start of their "
                "epoch; set by_epoch=True in the checkpoint hook to resume exactly."
            )
        accumulated = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
        if not self.by_epoch and accumulated > 1 and self.interval % accumulated:
            runner.logger.warning(
                f"Gradients are accumulated over {accumulated} iterations and checkpoints every "
                f"{self.interval} iterations lose a part of them; make the interval a multiple."
            )

    def before_val(self, runner: Runner) -> None:
        """Remember the random state, which validation may change."""
        self._before_val = get_random_state()

    def after_val(self, runner: Runner) -> None:
        """Continue training with the random state it had before validation."""
        if self._before_val is not None:
            set_random_state(self._before_val)
            self._before_val = None

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        # a best checkpoint is followed by a save inside validation: training's state counts
        mine = self._before_val if self._before_val is not None else get_random_state()
        self._random_states = all_gather_object(mine)
        try:
            with self._kept_on_failure(runner), self._late_removal():
                super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self._random_states = None

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return
        absent = [key for key in self.key_indicators if key != "auto" and key not in metrics]
        if absent:
            raise ValueError(
                f"save_best={absent[0]!r} is none of the numbers of the validation: "
                f"{', '.join(metrics) or 'there are none'}"
            )
        with self._kept_on_failure(runner), self._late_removal():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _kept_on_failure(self, runner: Runner) -> Iterator[None]:
        """Let a save that fails in the main process fail in all, and name no file it has not made.

        The other processes write nothing, and would wait for the main one in the next iteration.
        """
        names = ("last_ckpt", "best_ckpt_path", "best_ckpt_path_dict", "keep_ckpt_ids")
        mine = {name: copy.copy(getattr(self, name)) for name in names if hasattr(self, name)}
        told = dict(runner.message_hub.runtime_info)
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        reasons = [str(failure) if failure is not None else None]
        if get_world_size() > 1:
            reasons = all_gather_object(reasons[0])
        if not any(reason is not None for reason in reasons):
            return
        for name, value in mine.items():
            setattr(self, name, value)
        runner.message_hub.runtime_info.clear()
        runner.message_hub.runtime_info.update(told)
        if failure is not None:
            raise failure
        reason = next(reason for reason in reasons if reason is not None)
        raise RuntimeError(f"another process could not save a checkpoint: {reason}")

    @contextmanager
    def _late_removal(self) -> Iterator[None]:
        """Carry out removals at the end of the block, and not at all when it fails."""
        backend = self.file_backend
        self.file_backend = _LateRemoval(backend)
        try:
            yield
            self.file_backend.finish(keep=self._current_files())
        finally:
            self.file_backend = backend

    def _current_files(self) -> set[str]:
        best = [getattr(self, "best_ckpt_path", None)]
        best += list(getattr(self, "best_ckpt_path_dict", {}).values())
        return {str(path) for path in (self.last_ckpt, *best) if path}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Refuse what is not finite, make the checkpoint plain, and add the random states.

        Raises:
            ValueError: naming the first tensor with NaN or infinity.
        """
        step = checkpoint["meta"].get("iter")
        check_writable(saved_entries(checkpoint, self._constant), f"checkpoint of iteration {step}")
        checkpoint["message_hub"] = pack_message_hub(checkpoint["message_hub"])
        checkpoint["meta"] = without_odd_values(checkpoint["meta"], "meta")
        if "param_schedulers" in checkpoint:
            checkpoint["param_schedulers"] = without_functions(checkpoint["param_schedulers"])
        for key in checkpoint.keys() - {"message_hub", "meta", "state_dict"}:
            checkpoint[key] = to_plain(checkpoint[key], key)
        if self._random_states is not None:
            checkpoint[RANDOM_STATES] = self._random_states

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Hand the random state of this rank to the train loop, and rebuild the histories."""
        if "message_hub" in checkpoint:
            checkpoint["message_hub"] = unpack_message_hub(checkpoint["message_hub"])
        states = checkpoint.pop(RANDOM_STATES, None)
        if not runner._resume:
            return
        lacking = [key for key in ("meta", "optimizer") if not checkpoint.get(key)]
        if lacking:
            raise ValueError(
                f"--resume: {str(runner._load_from)!r} has no {' and no '.join(lacking)}, as "
                "checkpoints of a training have; to start from its weights set load_from=FILE "
                "without --resume"
            )
        self._keep_data_set_meta(runner, checkpoint["meta"])
        self._schedule = ResumedSchedule.of(runner, checkpoint)
        loop = runner.train_loop
        if states is None or not hasattr(loop, "random_state"):
            runner.logger.warning("Resuming, but not exactly: the random states are not restored.")
        elif len(states) != runner.world_size:
            runner.logger.warning(
                f"Resuming, but not exactly: the checkpoint was written by {len(states)} "
                f"processes and {runner.world_size} continue."
            )
        else:
            loop.random_state = states[get_rank()]

    @staticmethod
    def _keep_data_set_meta(runner: Runner, meta: dict[str, Any]) -> None:
        """Use the object of the data set when both say the same; mmengine compares pickles."""
        current = getattr(runner.train_dataloader.dataset, "metainfo", None)
        if "dataset_meta" in meta and current is not None:
            plain = without_odd_values(current, "dataset_meta")
            if repr(plain) == repr(meta["dataset_meta"]):
                meta["dataset_meta"] = current
