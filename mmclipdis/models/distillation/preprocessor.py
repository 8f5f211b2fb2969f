"""From a list of distillation samples to normalised batches on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.engine.pixel_statistics import FollowsTower
from mmclipdis.utils.statistics import IMAGENET


@MODELS.register_module()
class DistillDataPreprocessor(FollowsTower, BaseDataPreprocessor):
    """Batch the samples of :class:`PackDistillInputs` (lists, as ``pseudo_collate`` leaves them).

    Pixels go to the device as bytes and are normalised there. ``inputs`` becomes

    - ``image`` (B, 3, S, S) float32, normalised with ``mean`` and ``std``;
    - ``crops`` (M, 3, R, R) float32, the same, of all images one after another;
    - ``boxes`` (M, 5) float32: index of the image in the batch, normalised x0, y0, x1, y1;
    - ``proxies`` {side: (B, 3, side, side)} float32, with ``proxy_mean`` and ``proxy_std``.

    ``data_samples`` stay a list.

    Args:
        mean, std: Of the channels R, G, B in 0-255, for student and CLIP teacher. None is that of
            the student.
        proxy_mean, proxy_std: The same for the other teachers. ImageNet's, which every ``TimmVFM``
            takes and turns into its own.
        non_blocking: Copy to the device without waiting; of use with pinned memory only.

    Raises:
        ValueError: Constants that are not three positive numbers, or images, proxies or crops of
            several sizes in one batch.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        proxy_mean: Sequence[float] = IMAGENET.of_bytes[0],
        proxy_std: Sequence[float] = IMAGENET.of_bytes[1],
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        own_mean, own_std = self.or_clip(mean, std)
        proxies = {"proxy_mean": proxy_mean, "proxy_std": proxy_std}
        constants = {"mean": own_mean, "std": own_std, **proxies}
        for name, values in constants.items():
            if len(values) != 3 or ("std" in name and min(values) <= 0):
                raise ValueError(f"{name} needs three values, of std > 0, got {values}.")
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Batch and normalise; ``training`` changes nothing."""
        cast: dict[str, Any] = self.cast_data(data)  # type: ignore[assignment]
        inputs = cast["inputs"]
        counts = torch.tensor([len(boxes) for boxes in inputs["boxes"]])
        index = torch.arange(len(counts)).repeat_interleave(counts).to(self.device)
        boxes = torch.cat(inputs["boxes"])
        batch = {
            "image": (_joined("image", inputs["image"], torch.stack) - self.mean) / self.std,
            "crops": (_joined("crops", inputs["crops"], torch.cat) - self.mean) / self.std,
            "boxes": torch.cat((index[:, None].to(boxes), boxes), dim=1),
            "proxies": {
                side: (_joined("proxies", views, torch.stack) - self.proxy_mean) / self.proxy_std
                for side, views in inputs["proxies"].items()
            },
        }
        return {"inputs": batch, "data_samples": cast.get("data_samples")}


def _joined(name: str, tensors: Sequence[Tensor], join: Any) -> Tensor:
    """``tensors`` in one, as floats."""
    sizes = sorted({tuple(tensor.shape[-2:]) for tensor in tensors})
    if len(sizes) > 1:
        listed = ", ".join(f"{height}x{width}" for height, width in sizes)
        raise ValueError(
            f"the {name} of a batch must have one size, got {listed} (height x width); give all "
            "data sets the same DistillViews and GridCrops."
        )
    joined: Tensor = join(list(tensors))
    return joined.float()
