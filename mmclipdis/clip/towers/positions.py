"""Resampling of learned position embeddings, every published rule by its name.

======================  ==============================================  ======================
rule                    how                                             used by
======================  ==============================================  ======================
``legacy``              bicubic, ``scale_factor = (size + 0.1) / own``  ClearCLIP, SCLIP, DINO
``size``                bicubic to the size                             MaskCLIP, CAT-Seg, EVA,
                                                                        SigLIP
``antialias``           bicubic to the size with antialias (another     GEM, open_clip (load),
                        cubic kernel)                                   TIPS, DINOv2
``bilinear``            bilinear to the size                            CLIP-Surgery, PE
``bilinear_antialias``  bilinear to the size with antialias             SigLIP 2 NaFlex
======================  ==============================================  ======================

The results differ measurably (about 2 % of the amplitude from 14 to 28), so a method's rule is
part of its protocol.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.utils.interpolation import Mode, antialiased, by_products, is_symbol


def _legacy(table: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = (int(size) for size in table.shape[-2:])  # tensors under torch.jit.trace
    # +0.1 keeps floor(native * scale) from losing a row to rounding; PyTorch then samples at the
    # *given* factor, which is what the published numbers were made with.
    factor = ((grid[0] + 0.1) / height, (grid[1] + 0.1) / width)
    return F.interpolate(table, scale_factor=factor, mode="bicubic")


def _size(table: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.interpolate(table, size=grid, mode="bicubic", align_corners=False)


def _antialias(table: Tensor, grid: tuple[int, int]) -> Tensor:
    return antialiased(table, grid, mode="bicubic")


def _bilinear(table: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.interpolate(table, size=grid, mode="bilinear", align_corners=False)


def _bilinear_antialias(table: Tensor, grid: tuple[int, int]) -> Tensor:
    return antialiased(table, grid, mode="bilinear")


#: The rule of SigLIP 2 NaFlex, which sees images of whole patches alone.
NAFLEX = "bilinear_antialias"

POSITION_RULES: dict[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "legacy": _legacy,
    "size": _size,
    "antialias": _antialias,
    "bilinear": _bilinear,
    NAFLEX: _bilinear_antialias,
}

#: The same, as :func:`~mmclipdis.utils.interpolation.by_products` does it.
_PRODUCTS: dict[str, tuple[Mode, float]] = {
    "legacy": ("bicubic", 0.1),
    "size": ("bicubic", 0.0),
    "antialias": ("antialias", 0.0),
    "bilinear": ("bilinear", 0.0),
    "bilinear_antialias": ("bilinear_antialias", 0.0),
}


def check_position_rule(rule: str) -> str:
    """Return ``rule`` or raise ValueError with the known names."""
    if rule not in POSITION_RULES:
        raise ValueError(f"unknown position rule {rule!r}; known: {', '.join(POSITION_RULES)}")
    return rule


def resample_positions(
    embedding: Tensor,
    native: tuple[int, int],
    grid: tuple[int, int],
    rule: str,
    prefix: int = 1,
) -> Tensor:
    """Position embeddings of a ``grid`` of patches from those of the ``native`` grid.

    Args:
        embedding: ``(p + native_h * native_w, D)``, rows of CLS and other prefix tokens first.
        native: Grid (height, width) in patches that ``embedding`` was trained for.
        grid: Grid (height, width) in patches that is wanted.
        rule: A name of :data:`POSITION_RULES`.
        prefix: Rows ``p`` of ``embedding`` that are no patches; 0 for a table without them.

    Returns:
        ``(p + h * w, D)``: the parameter itself when the grids agree, otherwise a new tensor.
        The first ``p`` rows never change. The *grids* decide, not the token count: 7 x 28 patches
        are resampled although 14 x 14 has as many (the reference code misses that).

    Raises:
        ValueError: for an unknown rule or a table that does not fit ``native``.
    """
    check_position_rule(rule)
    if embedding.shape[0] != prefix + native[0] * native[1]:
        raise ValueError(
            f"position table has {embedding.shape[0]} rows, expected {prefix} + {native[0]} x "
            f"{native[1]}"
        )
    if not is_symbol(*grid) and grid == native:
        return embedding
    table = embedding[prefix:].T.reshape(1, -1, *native)  # (1, D, g_h, g_w)
    if is_symbol(*grid):  # an export for any image size
        table = by_products(table, grid, *_PRODUCTS[rule])
    else:
        table = POSITION_RULES[rule](table, grid)
    rows = table.flatten(2)[0].T
    return torch.cat([embedding[:prefix], rows]) if prefix else rows
