"""A schedule that the config has changed since the checkpoint, such as more epochs, is followed.

mmengine restores every setting of a scheduler with its progress, ``end`` among them, which it has
filled in by the length of the first run. A run that was resumed to be longer would go on with the
rate that the first ended with.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

from mmengine.runner import Runner

#: What changes while a scheduler steps; all else is a setting.
_PROGRESS = {
    *("optimizer", "last_step", "_global_step", "_last_value", "base_values", "verbose"),
    *("best", "num_bad_epochs", "num_bad_steps", "cooldown_counter"),
}


@dataclass
class ResumedSchedule:
    """Schedulers and rates as the config has them, before mmengine restores the old ones.

    Attributes:
        fresh: State of each scheduler after its first step, which is that of the start.
        groups: Parameter groups of the optimiser at the start, without the parameters.
        steps: How often each scheduler had stepped when the checkpoint was written.
        change: What differs, in words.
    """

    fresh: list[dict[str, Any]]
    groups: list[list[dict[str, Any]]]
    steps: list[int]
    change: str

    @classmethod
    def of(cls, runner: Runner, checkpoint: dict[str, Any]) -> ResumedSchedule | None:
        """Compare the schedulers of the config with those of a checkpoint to be resumed.

        Returns:
            None where they agree; else what :meth:`follow` needs.

        Raises:
            ValueError: they differ, and one of them follows a metric, whose past is not known.
        """
        current = _schedulers(runner.param_schedulers)
        saved = _schedulers(checkpoint.get("param_schedulers"))
        if not current or not saved:
            return None
        change = _change(current, saved)
        if change is None:
            _warn_of_rates(runner, checkpoint)
            return None
        if any(getattr(scheduler, "need_val_args", False) for scheduler in current):
            raise ValueError(
                f"--resume: the schedule of the config is another than the checkpoint's ({change}),"
                " and one of its parts follows a metric, so that it cannot be computed anew; give "
                "the settings of the first run, or start from its weights with load_from"
            )
        done = [int(state.get("_global_step", 0)) for state in saved]
        kinds = {scheduler.by_epoch: n for scheduler, n in zip(current, done, strict=False)}
        steps = [kinds.get(scheduler.by_epoch, 0) for scheduler in current]
        fresh = [copy.deepcopy(_state(scheduler)) for scheduler in current]
        return cls(fresh, [_copied(x) for x in _optimizers(runner)], steps, change)

    def follow(self, runner: Runner) -> None:
        """Bring schedulers and rates to where a run with this config would be, and say so."""
        current = _schedulers(runner.param_schedulers)
        optimizers = _optimizers(runner)
        before = _rate(optimizers)
        for optimizer, groups in zip(optimizers, self.groups, strict=True):
            for group, start in zip(optimizer.param_groups, groups, strict=True):
                group.update(copy.deepcopy(start))
        for scheduler, state in zip(current, self.fresh, strict=True):
            scheduler.__dict__.update(copy.deepcopy(state))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's of steps without the optimiser's
            self._step(current)
        runner.logger.warning(
            f"Resuming with another schedule than the checkpoint's ({self.change}): the learning "
            f"rate is {_rate(optimizers):.3g}, as in a run that had this config from the start, "
            f"instead of {before:.3g}."
        )

    def _step(self, current: list[Any]) -> None:
        """Step as mmengine's hook did: after each iteration, and after each epoch."""
        longest = max(self.steps)
        for now in range(1, longest + 1):
            for scheduler, steps in zip(current, self.steps, strict=True):
                # the n-th of `steps` falls on the last iteration of the n-th part
                if now * steps // longest > (now - 1) * steps // longest:
                    scheduler.step()


def _schedulers(listed: Any) -> list[Any]:
    """One list, also of several optimisers' schedulers."""
    if isinstance(listed, dict):
        return [scheduler for part in listed.values() for scheduler in part]
    return list(listed or [])


def _optimizers(runner: Runner) -> list[Any]:
    wrapper: Any = runner.optim_wrapper
    parts = list(wrapper.values()) if hasattr(wrapper, "values") else [wrapper]
    return [part.optimizer for part in parts]


def _copied(optimizer: Any) -> list[dict[str, Any]]:
    return [
        copy.deepcopy({k: v for k, v in group.items() if k != "params"})
        for group in optimizer.param_groups
    ]


def _state(scheduler: Any) -> dict[str, Any]:
    return {k: v for k, v in scheduler.__dict__.items() if k != "optimizer"}


def _rate(optimizers: list[Any]) -> float:
    return max(group["lr"] for optimizer in optimizers for group in optimizer.param_groups)


def _change(current: list[Any], saved: list[dict[str, Any]]) -> str | None:
    if len(current) != len(saved):
        return f"{len(saved)} schedulers -> {len(current)}"
    for scheduler, old in zip(current, saved, strict=True):
        new = _state(scheduler)
        for name in sorted((new.keys() & old.keys()) - _PROGRESS):
            if _plain(new[name]) != _plain(old[name]):
                kind = type(scheduler).__name__
                return f"{kind}.{name} {_plain(old[name])} -> {_plain(new[name])}"
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _warn_of_rates(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """mmengine restores the base rate, too: a changed one has no effect, which it does not say."""
    stored = checkpoint.get("optimizer", {}).get("param_groups")
    optimizers = _optimizers(runner)
    if not stored or len(optimizers) != 1:
        return
    for group, old in zip(optimizers[0].param_groups, stored, strict=False):
        new_rate, old_rate = group.get("initial_lr"), old.get("initial_lr")
        if new_rate is not None and old_rate is not None and new_rate != old_rate:
            runner.logger.warning(
                f"Resuming with the learning rate of the checkpoint, {old_rate:.3g}; the config's, "
                f"{new_rate:.3g}, has no effect. To change it start from the weights: load_from "
                "without --resume."
            )
            return
