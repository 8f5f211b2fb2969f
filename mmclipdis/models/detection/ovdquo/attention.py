"""The deformable attention of a detector: its levels, and where it needs full precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor, nn

from mmclipdis.utils.precision import at_least_fp32


def sample_in_full_precision(detector: nn.Module) -> None:
    """Have deformable attention sample float32 under autocast, too.

    It rounds the places where it samples to the type of the values. In half precision they would
    miss by pixels; and mmcv's compiled op knows no bfloat16.
    """
    for _, part in _attention(detector):
        part.value_proj.register_forward_hook(_full_output)


def check_levels(detector: nn.Module, levels: int) -> None:
    """Check that a detector's deformable attention has so many levels.

    Raises:
        ValueError: it has others.
    """
    for name, part in _attention(detector):
        if part.num_levels != levels:
            raise ValueError(
                f"num_feature_levels={levels}, but num_levels of {name} is {part.num_levels}: both "
                "must be the number of the neck's levels"
            )


def _attention(detector: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, part in detector.named_modules():
        if isinstance(part, MultiScaleDeformableAttention):
            yield name, part


def _full_output(_: nn.Module, __: Any, values: Tensor) -> Tensor:
    return at_least_fp32(values)
