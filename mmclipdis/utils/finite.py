"""Values that must be finite: numbers of a config, and tensors, many at the price of one sum."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor


def finite_number(what: str, value: Any) -> float:
    """A number of a config as a float.

    Raises:
        ValueError: it is none, or NaN or infinite; the message begins with ``what``.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{what} must be a number, got {value!r}")
    return float(value)


def named_tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor inside dicts, lists and tuples with its dotted name."""
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from named_tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, (list, tuple)):
        for i, value in enumerate(content):
            yield from named_tensors(value, f"{name}.{i}" if name else str(i))


def saved_entries(
    checkpoint: Mapping[str, Any], constant: set[str] | frozenset[str] = frozenset()
) -> Iterator[tuple[str, Tensor]]:
    """Named tensors of a checkpoint of mmengine that must be finite.

    Args:
        checkpoint: As ``Runner.save_checkpoint`` hands it to hooks. Losses and metrics of the past
            (``message_hub``) may be anything.
        constant: Names in the state dict of buffers that are infinite by design.
    """
    for key, part in checkpoint.items():
        if key in ("message_hub", "meta"):
            continue
        for name, value in named_tensors(part):
            if name.removeprefix("module.") not in constant:
                yield name if key == "state_dict" else f"{key}.{name}", value


@torch.no_grad()
def first_nonfinite(entries: Iterable[tuple[str, Tensor]]) -> str | None:
    """Say which tensor is the first with NaN or infinity: ``'NAME (3 of 768 values)'``; or None.

    All tensors of a device and type are summed up in one call (``|x|``, since NaN and infinity stay
    what they are in a sum), and only one number is read back. Only where that sum is not finite,
    which large finite values can do as well, each tensor is looked at.
    """
    tensors = [(name, _values(value)) for name, value in entries if _can_break(value)]
    groups: dict[Any, list[Tensor]] = defaultdict(list)
    for _, value in tensors:
        groups[value.device, value.dtype].append(value)
    if all(bool(_sums(values).isfinite().all()) for values in groups.values()):
        return None
    for name, value in tensors:
        broken = int(value.numel() - value.isfinite().sum())
        if broken:
            return f"{name} ({broken} of {value.numel()} values)"
    return None


def check_weights(state: Mapping[Any, Any], source: str) -> None:
    """Refuse weights of a file of which some are not finite; every score would be NaN, or wrong.

    Masks may hold infinity: those of attention are stored in that way.

    Args:
        state: Names to tensors; whatever is no tensor is not looked at.
        source: The file, for the message.

    Raises:
        ValueError: naming the first such tensor and how many of its values are not.
    """
    entries = ((str(name), v) for name, v in state.items() if isinstance(v, Tensor))
    broken = first_nonfinite(
        (name, v) for name, v in entries if not (name.endswith("mask") and not v.isnan().any())
    )
    if broken is not None:
        raise ValueError(
            f"{source!r}: {broken} is NaN or infinite; these weights are damaged, take an earlier "
            "checkpoint or fetch the file again"
        )


def check_writable(entries: Iterable[tuple[str, Tensor]], path: object) -> None:
    """Refuse to write a checkpoint with a tensor that is not finite.

    Raises:
        ValueError: naming the first such tensor and the file.
    """
    broken = first_nonfinite(entries)
    if broken is not None:
        raise ValueError(
            f"{str(path)!r} is not written: {broken} would be NaN or infinite in it; go on from "
            "the file before, with a lower learning rate or clipped gradients"
        )


def check_scores(scores: Tensor, image: Any, what: str = "scores") -> None:
    """Refuse what a model gives for an image when it holds NaN or infinity.

    The largest of such values is any class, and the metric a number like another. One sum an image;
    to be called on maps before they are made larger.

    Args:
        scores: Of one image, any shape.
        image: Its sample or meta information, with ``img_path``, or its name.
        what: They are, for the message.

    Raises:
        ValueError: naming the image.
    """
    if bool(scores.detach().sum(dtype=torch.float32).isfinite()):
        return
    broken = int(scores.numel() - scores.isfinite().sum())
    if broken:
        name = image if isinstance(image, str) else image.get("img_path")
        raise ValueError(
            f"the {what} of {name or 'an image without img_path'} are NaN or infinite ({broken} of "
            f"{scores.numel()} values); check the weights and the image, and test in full precision"
        )


def constant_infinities(model: torch.nn.Module) -> set[str]:
    """Names of the buffers that hold infinities by design, such as masks of attention.

    To be called before the first step: one that holds NaN is none of them.
    """
    return {
        name
        for name, value in model.named_buffers()
        if value.is_floating_point() and bool(value.isinf().any()) and not bool(value.isnan().any())
    }


def _can_break(value: Tensor) -> bool:
    inexact = value.is_floating_point() or value.is_complex()
    if value.dtype == getattr(torch, "float4_e2m1fn_x2", None):  # has neither NaN nor infinity
        return False
    return inexact and value.numel() > 0 and value.device.type != "meta"


def _values(value: Tensor) -> Tensor:
    value = value.detach()
    if value.layout != torch.strided:
        value = value.coalesce().values() if value.is_sparse else value.to_dense()
    # types of 8 bits have no norm
    return value.float() if value.is_floating_point() and value.element_size() == 1 else value


def _sums(values: list[Tensor]) -> Tensor:
    # many halves sum up to infinity, their maximum is one of them; else the sum is 4 times faster
    half = values[0].dtype == torch.float16
    with torch.autocast(values[0].device.type, enabled=False):  # which stacks no halves on a CPU
        return torch.stack(torch._foreach_norm(values, torch.inf if half else 1))
