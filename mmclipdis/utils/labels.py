"""Which number a label map has where there is no class."""

from __future__ import annotations


def no_class(num_classes: int) -> int:
    """The label of pixels without a class: 255, or 65535 where 255 is the number of a class."""
    return 255 if num_classes <= 255 else 65535
