"""Ensembling of trained and original weights: what is evaluated and saved, not what is trained."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn

UNMIXED = "unmixed_state_dict"


def mix_weights(trained: Tensor, original: Tensor, alpha: float) -> Tensor:
    """``alpha * trained + (1 - alpha) * original`` in the dtype of ``trained``; see the hook."""
    return torch.lerp(original.to(trained), trained, alpha)


@HOOKS.register_module()
class WeightEnsembleHook(Hook):
    r"""Evaluate and save :math:`\alpha\,\theta + (1 - \alpha)\,\theta_0`; train on :math:`\theta`.

    :math:`\theta_0` are the weights before training: those that ``init_cfg`` or, without resuming,
    ``load_from`` loads. (A run that started by ``load_from`` resumes with those of ``init_cfg`` as
    :math:`\theta_0`.) Between them and fine-tuned ones lie weights that keep more of what CLIP
    knew (WiSE-FT). During validation
    the model holds the mixed weights. A checkpoint's ``state_dict``, which ``tools/test.py``,
    ``init_cfg`` and the converters read, is the mixed one; the trained ones stand beside it, and
    resuming takes those, so that a resumed run equals an uninterrupted one. (The released code
    resumes from the mixed weights.)

    Args:
        alpha: Share of the trained weights: 0.7 for ViT-B, 0.95 for ViT-L in DeCLIP's scripts. 1
            changes nothing (the released code takes more than 1 for that, too).
        module: The part of the model to mix, by its dotted name; ``''`` for all of it.

    Raises:
        ValueError: ``alpha`` outside [0, 1], or a part that the model does not have.

    Source: DeCLIP (CVPR 2025), released code; the paper does not mention it.
    """

    priority = "NORMAL"

    def __init__(self, alpha: float, module: str = "student") -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"WeightEnsembleHook.alpha must lie in [0, 1], got {alpha}")
        self.alpha = alpha
        self.module = module
        self._original: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] | None = None  # while the model holds the mixed ones
        self._training = False

    def before_train(self, runner: Any) -> None:
        """From here on validations and checkpoints see the mixed weights."""
        if not self._original:
            self._keep_original(runner)
        self._training = True

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Train on the trained weights, also after a validation that broke off."""
        self.after_val_epoch(runner)

    def after_train(self, runner: Any) -> None:
        """A later validation or test sees what it is given."""
        self._training = False

    def before_val_epoch(self, runner: Any) -> None:
        """Put the mixed weights into the model."""
        if not self._training:
            return
        entries = dict(self._entries(runner))
        self._trained = {name: value.detach().clone() for name, value in entries.items()}
        for name, value in entries.items():
            value.copy_(mix_weights(value, self._original[name], self.alpha))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Put the trained weights back."""
        if self._trained is None:
            return
        for name, value in self._entries(runner):
            value.copy_(self._trained[name])
        self._trained = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the mixed weights as ``state_dict`` and the trained ones beside it."""
        state = checkpoint["state_dict"]
        trained = self._trained or dict(self._entries(runner))
        prefix = f"{self.module}." if self.module else ""
        for name, value in trained.items():
            mixed = mix_weights(value.detach(), self._original[name], self.alpha)
            state[prefix + name] = mixed.cpu()
        checkpoint[UNMIXED] = {prefix + k: v.detach().cpu().clone() for k, v in trained.items()}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Resume from the trained weights."""
        trained = checkpoint.pop(UNMIXED, None)
        if not runner._resume:
            return
        self._keep_original(runner)  # the model still holds what init_cfg loaded
        if trained is None:
            runner.logger.warning(
                "Resuming from a checkpoint that was written without WeightEnsembleHook: its "
                "weights are taken for the trained ones."
            )
        else:
            checkpoint["state_dict"].update(trained)

    def _keep_original(self, runner: Any) -> None:
        self._original = {name: value.detach().clone() for name, value in self._entries(runner)}

    def _entries(self, runner: Any) -> list[tuple[str, Tensor]]:
        """What training may change: parameters that are not frozen, and floating-point buffers."""
        module = _part(runner.model, self.module)
        frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
        return [
            (name, value)
            for name, value in module.state_dict().items()
            if name not in frozen and value.is_floating_point()
        ]


def _part(model: Any, name: str) -> nn.Module:
    model = model.module if is_model_wrapper(model) else model
    try:
        found: nn.Module = model.get_submodule(name)
    except AttributeError:
        raise ValueError(
            f"WeightEnsembleHook.module={name!r}: {type(model).__name__} has no such part; it has "
            f"{', '.join(child for child, _ in model.named_children())}"
        ) from None
    return found
