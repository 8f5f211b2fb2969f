"""Batches of images, all of one size, or of tokens that were computed before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS

from mmclipdis.engine.pixel_statistics import FollowsTower


@MODELS.register_module()
class DCLIPDataPreprocessor(FollowsTower, ImgDataPreprocessor):
    """mmengine's ``ImgDataPreprocessor`` with the encoder's mean and std, for images of one size.

    Images of a sample are (3, H, W), 0..255, BGR as mmcv loads them, and become (B, 3, H, W).
    Tokens of a sample are (L, D) and become (B, L, D), not changed.

    Args:
        mean, std: Of RGB in 0..255. None is that of the model's encoder.
        bgr_to_rgb: Whether the images are BGR.
        non_blocking: Whether to copy to the GPU without waiting.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr_to_rgb: bool = True,
        non_blocking: bool = False,
    ) -> None:
        own_mean, own_std = self.or_clip(mean, std)
        super().__init__(own_mean, own_std, bgr_to_rgb=bgr_to_rgb, non_blocking=non_blocking)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """The batch on the model's device; ``training`` changes nothing.

        Raises:
            ValueError: Images, or tokens, of different sizes. (Padding would change what CLIP
                sees.)
        """
        inputs = data["inputs"]
        sizes = {tuple(one.shape) for one in inputs}
        if len(sizes) > 1:
            what = ", ".join(" x ".join(map(str, size)) for size in sorted(sizes)[:3])
            raise ValueError(
                f"inputs of different sizes in one batch ({what}): end the pipeline with "
                "dict(type='Resize', scale=(448, 448), keep_ratio=False), or set batch_size=1"
            )
        if inputs[0].ndim != 2:
            batch: dict[str, Any] = super().forward(data, training)
            return batch
        cast: dict[str, Any] = self.cast_data(data)  # type: ignore[assignment]
        tokens = cast["inputs"]
        return {**cast, "inputs": torch.stack(list(tokens))}
