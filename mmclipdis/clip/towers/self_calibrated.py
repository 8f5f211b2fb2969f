"""The fields of SC-CLIP's readout; what they mean in numbers says ``scclip.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmclipdis.clip.towers.readout_fields import block_numbers
from mmclipdis.utils.finite import finite_number


@dataclass(frozen=True)
class SelfCalibrated:
    """SC-CLIP (Bai et al., 2024): the tower's own blocks tell which patches belong together.

    The defaults are those published for ViT-B/16, whose 12 blocks they count; for other depths none
    are known.

    Attributes:
        deep: 0-based block whose output says which patches are alike; negative counts from the end.
        mid: The block whose output says it once more, of what comes out.
        summed: Blocks whose outputs are summed into the second branch.
        k: Neighbours of a patch token among which it is an outlier or not; a window must have more
            patches than that.
        outliers: The share of patches that are taken for outliers.
        threshold: Cosines below this are no likeness.
        cls: Factor of the CLS token that is added.

    Raises:
        ValueError: for values that cannot be.
    """

    deep: int = 8
    mid: int = 3
    summed: tuple[int, ...] = (3, 4, 5, 6, 7, 8, 9)
    k: int = 30
    outliers: float = 0.05
    threshold: float = 0.4
    cls: float = 0.3

    def __post_init__(self) -> None:
        summed = block_numbers("SelfCalibrated.summed", self.summed)
        object.__setattr__(self, "summed", summed)
        blocks = dict(deep=_is_int(self.deep), mid=_is_int(self.mid), summed=bool(summed))
        for name, right in blocks.items():
            if not right:
                raise ValueError(
                    f"SelfCalibrated.{name} must be numbers of blocks, got {getattr(self, name)!r}"
                )
        if not _is_int(self.k) or self.k < 1:
            raise ValueError(f"SelfCalibrated.k must be a whole number above 0, got {self.k!r}")
        for name in ("outliers", "threshold", "cls"):
            what = f"SelfCalibrated.{name}"
            object.__setattr__(self, name, finite_number(what, getattr(self, name)))
        for name in ("outliers", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"SelfCalibrated.{name} must be from 0 to 1, got {getattr(self, name)!r}"
                )

    @property
    def needs_cls(self) -> bool:
        """Whether CLS enters the map."""
        return bool(self.cls)

    @property
    def blocks_read(self) -> tuple[int, ...]:
        """The blocks whose outputs are read, beside the last one."""
        return (self.deep, self.mid, *self.summed)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
