"""A hook that stops training at the first loss, weight or optimiser state that is not a number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmclipdis.engine.checkpoint_files import last_good_checkpoint
from mmclipdis.engine.checkpoint_io import is_remote
from mmclipdis.utils.finite import (
    constant_infinities,
    first_nonfinite,
    named_tensors,
    saved_entries,
)

#: A dynamic loss scale below this has been halved for a hundred steps: no gradient was finite.
_LOWEST_SCALE = 2.0**-40
_REMEDY = "Lower the learning rate, clip gradients, or train without --amp."


class NonFiniteLossError(RuntimeError):
    """A loss, a weight or a state of the optimiser became NaN or infinite."""


@HOOKS.register_module()
class NonFiniteGuard(Hook):
    """Stop when training goes to NaN or infinity, before a checkpoint of it is written.

    After each iteration the losses, the trained parameters and the saved buffers are looked at, the
    weights by one sum (0.4 ms a million parameters on one CPU core, nothing to speak of on a GPU).
    So a NaN that enters by a gradient is found in the iteration itself; an infinite gradient that
    the scaler of mixed precision skips is no fault, as it does not reach the weights. Before a
    checkpoint the states of the optimiser and of averaged weights (EMA) are looked at as well.

    The error names the iteration, what broke first, the image files of the batch (of all processes,
    which stop together) and the newest checkpoint that really holds finite numbers only. The hook
    comes after those that average weights and before the turn of any checkpoint hook.
    """

    priority = "BELOW_NORMAL"

    def __init__(self) -> None:
        self._constant: set[str] = set()
        self._files: list[str] = []  # of the last batch

    def before_train(self, runner: Runner) -> None:
        """Note which buffers are infinite by design."""
        self._constant = constant_infinities(_module(runner))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Check every output whose name contains ``loss``, and the weights.

        Raises:
            NonFiniteLossError: one is NaN or infinite, in this process or another.
        """
        problem = _broken_losses(outputs or {})
        if problem is None:
            problem = self._broken_weights(runner, everything=_saves_now(runner))
        self._stop_together(runner, f"iteration {runner.iter + 1}", problem, data_batch)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check all that a checkpoint of the epoch would hold.

        Raises:
            NonFiniteLossError: as :meth:`after_train_iter`.
        """
        problem = self._broken_weights(runner, everything=True)
        self._stop_together(runner, f"iteration {runner.iter}", problem, None)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Check the losses among the metrics.

        Raises:
            NonFiniteLossError: one is NaN or infinite.
        """
        numbers = {k: v for k, v in (metrics or {}).items() if isinstance(v, (int, float))}
        problem = _broken_losses(numbers)
        if problem is not None:
            raise self._error(runner, f"validation: {problem}", ())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Refuse to write a checkpoint that is not finite, whichever hook saves it.

        Raises:
            NonFiniteLossError: naming the first entry.
        """
        broken = first_nonfinite(saved_entries(checkpoint, self._constant))
        if broken is not None:
            step = checkpoint.get("meta", {}).get("iter")
            problem = f"checkpoint of iteration {step}: {broken} is NaN or infinite"
            raise self._error(runner, problem, self._files)

    def _broken_weights(self, runner: Runner, everything: bool) -> str | None:
        model, optimizer = _module(runner), getattr(runner, "optim_wrapper", None)
        if model is None:
            return None
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        found = first_nonfinite(parameters.items())
        if found is not None:
            return f"parameter {found} is NaN or infinite"
        buffers = {n: b for n, b in model.named_buffers() if n not in self._constant}
        found = first_nonfinite(buffers.items())
        if found is not None:
            return f"buffer {found} is NaN or infinite"
        scale = getattr(getattr(optimizer, "loss_scaler", None), "get_scale", None)
        if scale is not None and scale() < _LOWEST_SCALE:
            return f"no gradient has been finite for long: the loss scale fell to {scale():.0e}"
        if not everything:
            return None
        found = first_nonfinite(_optimizer_entries(optimizer, parameters))
        if found is not None:
            return f"optimiser state {found} is NaN or infinite"
        for hook in runner.hooks:
            average = getattr(hook, "ema_model", None)
            if isinstance(average, nn.Module):
                entries = average.state_dict().items()
                found = first_nonfinite(
                    (n, v) for n, v in entries if n.removeprefix("module.") not in self._constant
                )
                if found is not None:
                    return f"averaged weight {found} is NaN or infinite"
        return None

    def _stop_together(self, runner: Runner, where: str, problem: str | None, batch: Any) -> None:
        """Raise in every process when one has a problem; otherwise none would wait for it."""
        files = self._files = list(image_files(batch)) if batch is not None else self._files
        if get_world_size() > 1:
            module = _module(runner)
            device = next((p.device for p in module.parameters()), torch.device("cpu"))
            broken = torch.tensor(float(problem is not None), device=device)
            all_reduce(broken, "max")
            if not bool(broken):
                return
            found = all_gather_object((problem, files))
            problem = next(text for text, _ in found if text is not None)
            files = [name for _, names in found for name in names]
        if problem is not None:
            raise self._error(runner, f"{where}: {problem}", files)

    def _error(self, runner: Runner, problem: str, files: Iterable[str]) -> NonFiniteLossError:
        named = list(dict.fromkeys(files))
        listed = ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "")
        about = f"; files of the batch: {listed}" if named else ""
        last = runner.message_hub.get_info("last_ckpt")
        if last and is_remote(last):
            good: str | None = f"one of {last.rpartition('/')[0]}"
        else:
            folder = Path(last).parent if last else getattr(runner, "work_dir", None)
            good = last_good_checkpoint(folder, self._constant) if folder else None
        return NonFiniteLossError(
            f"{problem}{about}; last good checkpoint: {good or 'none was saved yet'}. {_REMEDY}"
        )


def image_files(batch: Any) -> Iterator[str]:
    """Yield the image paths of a batch in mmengine's layout, in order."""
    samples = batch.get("data_samples", ()) if isinstance(batch, dict) else batch
    if not isinstance(samples, Sequence) or isinstance(samples, str):
        return
    for sample in samples:
        if isinstance(sample, dict):
            sample = sample.get("data_samples")
        path = getattr(sample, "img_path", None)
        if path:
            yield str(path)


def _broken_losses(outputs: Mapping[str, Any]) -> str | None:
    losses = {name: value for name, value in outputs.items() if "loss" in name}
    tensors = {n: v.detach().float().sum() for n, v in losses.items() if isinstance(v, Tensor)}
    if tensors:  # one number to wait for on a GPU
        values = torch.stack(list(tensors.values())).tolist()
        losses.update(zip(tensors, values, strict=True))
    broken = [f"{n} = {float(v)}" for n, v in losses.items() if not math.isfinite(v)]
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    return ", ".join(broken[:3]) + more if broken else None


def _saves_now(runner: Runner) -> bool:
    """Whether a checkpoint hook, mmengine's too, saves at the end of this iteration."""
    last = runner.iter + 1 >= (getattr(runner, "max_iters", None) or math.inf)
    return any(
        isinstance(hook, CheckpointHook)
        and not hook.by_epoch
        and (last or (hook.interval > 0 and (runner.iter + 1) % hook.interval == 0))
        for hook in getattr(runner, "hooks", ())
    )


def _module(runner: Any) -> Any:
    model: Any = getattr(runner, "model", None)
    return model.module if is_model_wrapper(model) else model


def _optimizer_entries(optimizer: Any, parameters: Mapping[str, Any]) -> Iterator[Any]:
    names = {id(value): name for name, value in parameters.items()}
    wrappers = list(optimizer.values()) if hasattr(optimizer, "values") else [optimizer]
    for wrapper in wrappers:
        for value, state in getattr(getattr(wrapper, "optimizer", None), "state", {}).items():
            yield from named_tensors(state, names.get(id(value), "parameter"))
