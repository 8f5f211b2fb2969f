"""mmseg's preprocessor without its rule that test images of a batch share one size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS
from mmseg.models.data_preprocessor import SegDataPreProcessor
from torch import nn

from mmclipdis.models.segmentation.windows import pair


@MODELS.register_module()
class MixedSizeSegDataPreProcessor(SegDataPreProcessor):
    """``SegDataPreProcessor`` for test batches of images of several sizes.

    Where all images have one size, and in training, it is mmseg's. Else each image is prepared on
    its own and ``inputs`` is a list of (3, H, W), which :class:`OpenVocabSegmentor` and CATSeg
    accept: their windows are batched over images, and nothing is padded. Arguments are those of
    ``SegDataPreProcessor``. Registered in mmengine's root, where ``BaseModel`` looks whatever
    the default scope.

    Raises:
        ValueError: a ``size`` that is none, or a ``std`` that pixels cannot be divided by.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        size: Any = getattr(self, "size", None)
        if size is not None:
            self.size = pair(size, "data_preprocessor.size")
        std = getattr(self, "std", None)
        if std is not None and not std.is_meta and not (std > 0).all():
            values = std.flatten().tolist()
            raise ValueError(
                f"data_preprocessor.std must be above 0 for every colour, got {values}"
            )

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepare a batch; ``inputs`` becomes (B, 3, H, W), or a list when sizes differ."""
        images = data["inputs"]
        if training or len({tuple(image.shape[1:]) for image in images}) <= 1:
            return super().forward(data, training)  # type: ignore[no-any-return]
        samples = data.get("data_samples")
        prepared = [
            super(MixedSizeSegDataPreProcessor, self).forward(
                {"inputs": [image], "data_samples": None if samples is None else [samples[i]]}
            )
            for i, image in enumerate(images)
        ]
        return {
            "inputs": [single["inputs"][0] for single in prepared],
            "data_samples": None
            if samples is None
            else [single["data_samples"][0] for single in prepared],
        }


def for_mixed_sizes(
    preprocessor: Mapping[str, Any] | nn.Module | None,
) -> Mapping[str, Any] | nn.Module | None:
    """The config of a preprocessor, mmseg's own replaced by :class:`MixedSizeSegDataPreProcessor`.

    For models that take images one by one: a test batch of photos of several sizes then works
    whatever the config says. Other configs, and modules, stay as they are.
    """
    if not isinstance(preprocessor, Mapping):
        return preprocessor
    kind = preprocessor.get("type")
    if kind is not SegDataPreProcessor and str(kind).split(".")[-1] != SegDataPreProcessor.__name__:
        return preprocessor
    return {**preprocessor, "type": MixedSizeSegDataPreProcessor}
