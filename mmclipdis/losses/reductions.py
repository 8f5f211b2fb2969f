"""What a loss makes of its values, as mm's losses say it."""

from __future__ import annotations

from typing import Literal, get_args

Reduction = Literal["mean", "sum", "none"]


def check_reduction(reduction: str) -> None:
    """Check the option of a loss.

    Raises:
        ValueError: There is no such reduction.
    """
    if reduction not in get_args(Reduction):
        names = ", ".join(get_args(Reduction))
        raise ValueError(f"reduction must be one of {names}, got {reduction!r}.")
