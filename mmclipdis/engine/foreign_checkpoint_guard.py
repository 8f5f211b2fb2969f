"""Refuse checkpoints that do not fit: mmengine loads what fits and scores the rest random."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, CheckpointLoader
from torch import Tensor, nn

from mmclipdis.engine.random_weights import pretrained

#: Parts that take no part in testing: a checkpoint to test may lack them.
TRAINING_ONLY = ("lpam.", "auxiliary_head.")
#: Stock heads, by name because their packages are optional; our own say ``needs_checkpoint``.
STOCK_HEADS = {"BaseDecodeHead", "BaseDenseHead", "BBoxHead"}


@HOOKS.register_module()
class ForeignCheckpointGuard(Hook):
    """Stop when a checkpoint does not fit the model; the tools add this hook to every run.

    mmengine loads what fits and logs the rest, so that the checkpoint of another model, size or
    number of classes would leave weights as they were: random. A checkpoint of which nothing
    belongs to the model is always refused. One to test or to resume must also hold every parameter,
    in the model's shape; what the model leaves out of its checkpoints
    (:func:`~mmclipdis.models.unsaved.leave_out_of_checkpoints`) and, for testing, what only
    training uses (:data:`TRAINING_ONLY`) may be missing. A training may start (``load_from``) from
    a part of a model; other shapes are then one warning.

    Raises:
        ValueError: see :func:`check_checkpoint`.
    """

    priority = "VERY_LOW"  # after the hooks that change the checkpoint

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Compare before mmengine loads."""
        trains = isinstance(getattr(runner, "_train_loop", None), BaseLoop)  # built by train() only
        if trains and not getattr(runner, "_resume", False):
            check_checkpoint(runner.model, checkpoint, partial=True)
        else:
            check_checkpoint(runner.model, checkpoint, may_lack=() if trains else TRAINING_ONLY)


def check_checkpoint(
    model: Any,
    checkpoint: Mapping[str, Any],
    *,
    may_lack: tuple[str, ...] = TRAINING_ONLY,
    partial: bool = False,
) -> None:
    """Refuse a checkpoint that leaves parameters of a model as they were.

    What fits is loaded by the way, since only loading knows the names that modules rewrite.

    Args:
        model: The model, maybe in a wrapper.
        checkpoint: A state dict, or a dict with one under ``state_dict``.
        may_lack: Starts of the names that may be missing.
        partial: Whether any names may be missing, and other shapes are warned of.

    Raises:
        ValueError: nothing belongs to the model (this names how a backbone is loaded instead), or
            the first names that have other shapes or are missing.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module  # as mmengine loads
    state = checkpoint.get("state_dict", checkpoint)
    found = {str(key).removeprefix("module."): value for key, value in state.items()}
    own = model.state_dict()
    if own and not found.keys() & own.keys():
        raise ValueError(
            f"nothing in the checkpoint belongs to the {type(model).__name__}: it holds "
            f"{_some(found)}, the model {_some(own)}. Give one of this config; weights "
            f"{_remedy(set(found), model)}"
        )
    shapes, missing = _misfits(model, own, found, getattr(state, "_metadata", None) or {})
    missing = [] if partial else [name for name in missing if not name.startswith(may_lack)]
    if not shapes and not missing:
        return
    problems = []
    if shapes:
        problems.append(f"{len(shapes)} entries have another shape ({', '.join(shapes[:3])})")
    if missing:
        problems.append(f"{len(missing)} of the model's are missing ({', '.join(missing[:3])})")
    message = f"the checkpoint does not fit the {type(model).__name__}: {' and '.join(problems)}"
    if partial:
        warnings.warn(f"{message}; these keep the weights that they had", stacklevel=3)
        return
    raise ValueError(
        f"{message}. These would stay as they were, random: give the config that the checkpoint "
        "was trained with (encoder, number of classes), or a checkpoint of this one"
    )


def check_pretrained(model: nn.Module) -> None:
    """Check the files that ``init_cfg=dict(type='Pretrained')`` of a model is about to load.

    Raises:
        ValueError: as :func:`check_checkpoint`; every parameter must be there.
    """
    for config in pretrained(model):
        checkpoint = CheckpointLoader.load_checkpoint(config["checkpoint"], map_location="cpu")
        prefix = config.get("prefix") or ""
        prefix += "." if prefix and not prefix.endswith(".") else ""
        state = checkpoint.get("state_dict", checkpoint)
        check_checkpoint(
            model,
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)},
            may_lack=(),
        )


def check_trained(model: nn.Module) -> None:
    """Refuse to use a head that must be trained and whose weights come from nowhere.

    For models without a checkpoint: a pretrained encoder says nothing of the head on top of it. A
    class says with ``needs_checkpoint = True`` that it must be trained; mmseg's decode heads and
    mmdet's dense and box heads always must. A ``Pretrained`` ``init_cfg`` of the head, or of a
    model around it, is a source.

    Raises:
        ValueError: naming the heads.
    """
    heads = list(_untrained(model, ""))
    if heads:
        raise ValueError(
            f"no weights for {', '.join(heads)}: only parts of the model have a Pretrained "
            "init_cfg, and these must have been trained; give a checkpoint"
        )


def _untrained(module: nn.Module, name: str) -> Iterator[str]:
    if pretrained(module):
        return
    stock = any(base.__name__ in STOCK_HEADS for base in type(module).__mro__)
    if getattr(module, "needs_checkpoint", stock):
        yield f"{name} ({type(module).__name__})"
        return
    for part, child in module.named_children():
        yield from _untrained(child, f"{name}.{part}".lstrip("."))


def _misfits(
    model: nn.Module,
    own: Mapping[str, Tensor],
    found: Mapping[str, Any],
    versions: Mapping[str, Any],
) -> tuple[list[str], list[str]]:
    """Entries of other shapes than the model's ``own``, and parameters that were not found."""
    state = dict(found)  # the modules' hooks change it
    loaded = {  # Projectors from a file of their own
        name
        for start, module in model.named_modules()
        if getattr(module, "fresh", True) is False
        for name, _ in module.named_parameters(start)
    }

    def load(module: nn.Module, prefix: str) -> None:
        module._load_from_state_dict(
            state, prefix, versions.get(prefix[:-1], {}), False, [], [], []
        )
        for name, child in module.named_children():
            load(child, f"{prefix}{name}.")

    load(model, "")
    shapes = [
        f"{name}: {tuple(given.shape)} for {tuple(value.shape)}"
        for name, value in own.items()
        if isinstance(given := state.get(name), Tensor)
        and given.shape != value.shape
        and not given.numel() == value.numel() == 1  # torch takes (1,) for ()
    ]
    names = (name for name, _ in model.named_parameters() if name not in loaded)
    return shapes, [name for name in names if not isinstance(state.get(name), Tensor)]


def _remedy(found: set[str], model: Any) -> str:
    if all(name.startswith("projectors.") for name in found):
        for part in ("decode_head", "segments"):
            if hasattr(getattr(model, part, None), "projector"):
                return f"of DCLIP's projectors go into --cfg-options model.{part}.projector=FILE"
        return "of DCLIP's projectors belong to the config that they were trained with"
    if hasattr(model, "segmentor") and any(name.startswith("decode_head.") for name in found):
        return (
            "of a plain segmentor go into --cfg-options model.segmentor.init_cfg.type=Pretrained "
            "model.segmentor.init_cfg.checkpoint=FILE"
        )
    if any(name.startswith("segmentor.") for name in found):
        return "of InfoCLIP become the segmentor's by tools/model_converters/infoclip.py"
    return (
        "of an encoder alone (a distilled student, too) go into its init_cfg: "
        "--cfg-options model.backbone.init_cfg.checkpoint=FILE, or image_encoder, encoder"
    )


def _some(names: Any) -> str:
    return ", ".join(sorted(names)[:2]) or "nothing"
