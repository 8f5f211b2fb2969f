"""SAM as what mixes the tokens of an image before the head (Trident, ICCV 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.clip.towers.affinity import resize_values
from mmclipdis.clip.towers.last_block import check_projections
from mmclipdis.clip.towers.sam_matrix import check_sam, sam_mixed
from mmclipdis.engine.random_weights import NO_SOURCE
from mmclipdis.models.vfm import TimmVFM
from mmclipdis.utils.finite import finite_number
from mmclipdis.utils.interpolation import antialiased


@MODELS.register_module()
class SAMMatrix(BaseModule):
    """Mixes the tokens of an image by the attention of SAM's last block, where values agree.

    A ``token_mixer`` of :class:`~mmclipdis.models.segmentation.OpenVocabSegmentor`. The image is
    resized so that its long side is that of SAM (1024 pixels) and its short side the nearest whole
    number of SAM's patches, and padded to SAM's square; the tokens are resized bilinearly to the
    grid of the image in it and come out on that grid.

    Args:
        model: ``sam-B``, ``sam-L`` or a ``samvit`` of timm.
        kappa: Factor of the mean cosine that values must exceed; 0 keeps every positive cosine.
        refine_neg: Whether a negative threshold stays as it is; False puts 0.6 in its place.
        splits: Parts (rows, columns) of the image that SAM sees one by one, each as an image with a
            matrix of its own: ``(1, 2)`` for the halves of Cityscapes.
        model_kwargs, precision, init_cfg: As in :class:`~mmclipdis.models.vfm.TimmVFM`.

    Different from the published code: SAM sees the pixels that CLIP sees, at the size that the
    pipeline gives them, where Trident reads the photo a second time; and the prompts by which SAM
    refines the labels at the end are not there, which its table has: they need SAM's decoder.

    Raises:
        ValueError: a model that is no SAM, a negative ``kappa``, bad ``splits``, and what TimmVFM
            refuses.
    """

    def __init__(
        self,
        model: str = "sam-B",
        kappa: float = 1.2,
        refine_neg: bool = True,
        splits: Sequence[int] = (1, 1),
        model_kwargs: Mapping[str, Any] | None = None,
        precision: str | None = None,
        init_cfg: Mapping[str, Any] | None = NO_SOURCE,
    ) -> None:
        super().__init__()
        self.kappa = finite_number("SAMMatrix.kappa", kappa)
        if self.kappa < 0:
            raise ValueError(f"SAMMatrix.kappa must be a number from 0 on, got {kappa!r}")
        if not isinstance(refine_neg, bool):
            raise ValueError(f"SAMMatrix.refine_neg must be True or False, got {refine_neg!r}")
        parts = tuple(splits) if isinstance(splits, Sequence) else ()
        whole = [isinstance(part, int) and not isinstance(part, bool) for part in parts]
        if len(parts) != 2 or not all(whole) or min(parts) < 1:
            raise ValueError(
                "SAMMatrix.splits must be the parts (rows, columns) of the image, such as (1, 2) "
                f"for its left and right half; got {splits!r}"
            )
        self.refine_neg, self.splits = refine_neg, parts
        self.vfm = TimmVFM(model, model_kwargs, precision=precision, init_cfg=init_cfg)
        check_sam(self.vfm.model, model)
        check_projections(self.vfm.model, model, "the matrix of SAM")
        self.requires_grad_(False)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Mix tokens.

        Args:
            images: ``(B, 3, H, W)`` RGB with CLIP's mean and std taken off.
            tokens: ``(B, D, h, w)`` of the same images.

        Returns:
            ``(B, D, gh, gw)``, on SAM's grid.

        Raises:
            ValueError: an image with less than a pixel a part.
        """
        down, across = self.splits
        height, width = (int(size) for size in images.shape[-2:])
        if height < down or width < across:
            raise ValueError(
                f"an image of {height} x {width} px cannot be split into {down} x {across} parts: "
                "choose SAMMatrix.splits=(1, 1)"
            )
        pixels = self.vfm.from_clip(images)
        grid = self._grid(height / down, width / across)
        on_grid = resize_values(tokens, (down * grid[0], across * grid[1]))
        lines = []
        for row in range(down):
            strip = pixels[..., _part(height, row, down), :]
            some = on_grid[..., _part(down * grid[0], row, down), :]
            columns = [
                self._mix(
                    strip[..., _part(width, column, across)],
                    some[..., _part(across * grid[1], column, across)],
                )
                for column in range(across)
            ]
            lines.append(torch.cat(columns, dim=-1))
        return torch.cat(lines, dim=-2)

    def _grid(self, height: float, width: float) -> tuple[int, int]:
        """Tokens (rows, columns) that an image of so many pixels has, its long side full."""
        native = self.vfm.model.patch_embed.grid_size
        scale = min(native[0] / height, native[1] / width)
        rows, columns = (max(1, int(size * scale + 0.5)) for size in (height, width))
        return rows, columns

    def _mix(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Mix the tokens ``(B, D, gh, gw)`` of a part whose pixels are ``(B, 3, h, w)``."""
        patch_h, patch_w = self.vfm.patch_size
        native = self.vfm.model.patch_embed.grid_size
        rows, columns = (int(size) for size in tokens.shape[-2:])
        wide = pixels.to(torch.promote_types(pixels.dtype, torch.float32))  # half has no antialias
        resized = antialiased(wide, (rows * patch_h, columns * patch_w), "bilinear").to(pixels)
        padding = (0, (native[1] - columns) * patch_w, 0, (native[0] - rows) * patch_h)
        mixed = []
        for image, some in zip(resized, tokens, strict=True):
            found = self.vfm.last_projections(F.pad(image, padding)[None])
            with torch.autocast(tokens.device.type, enabled=False):
                q, k, v = (part[0] for part in found)
                block = self.vfm.model.blocks[-1]
                mixed.append(sam_mixed(block, (q, k, v), some, self.kappa, self.refine_neg))
        return torch.stack(mixed)


def _part(length: int, number: int, parts: int) -> slice:
    """Where part ``number`` of so many lies in a length."""
    return slice(length * number // parts, length * (number + 1) // parts)
