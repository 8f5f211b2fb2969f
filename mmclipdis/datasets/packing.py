"""The last step of a pipeline hands on the names that somebody asks for, in any config.

``DetInferencer(...)(photo, texts='kite . apple')`` gives the text to the pipeline, and the stock
last step drops it unless its ``meta_keys`` say otherwise: a model that reads texts would name its
own classes, and nobody would say so. In mmdet's and mmseg's registries that step is ours.
"""

from __future__ import annotations

from typing import Any

from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG
from mmclipdis.datasets.detection.pseudo_boxes import MARK, is_coded, unpack
from mmclipdis.models.asked_names import TEXT_KEYS


class KeepsTexts:
    """Mixin of a stock step that packs: texts that came in are metainfo of the data sample."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """As the stock step, with what ``results`` say of :data:`TEXT_KEYS`."""
        packed: dict[str, Any] = super().transform(results)  # type: ignore[misc]
        asked = {key: results[key] for key in TEXT_KEYS if results.get(key) is not None}
        packed["data_samples"].set_metainfo(asked)
        return packed


if HAS_MMDET:
    from mmdet.datasets.transforms import PackDetInputs
    from mmdet.registry import TRANSFORMS as DETECTION

    @DETECTION.register_module(name="PackDetInputs", force=True)
    class PackDetInputsWithTexts(KeepsTexts, PackDetInputs):
        """mmdet's ``PackDetInputs`` that keeps texts, and the weights of pseudo boxes."""

        def transform(self, results: dict[str, Any]) -> dict[str, Any]:
            """As the stock step; with pseudo boxes ``gt_instances`` has ``weights``."""
            packed = super().transform(results)
            # an image without the mark may have been joined with one that has it
            if results.get(MARK) or is_coded(packed["data_samples"]):
                unpack(packed["data_samples"])
            return packed


if HAS_MMSEG:
    from mmseg.datasets.transforms import PackSegInputs
    from mmseg.registry import TRANSFORMS as SEGMENTATION

    @SEGMENTATION.register_module(name="PackSegInputs", force=True)
    class PackSegInputsWithTexts(KeepsTexts, PackSegInputs):
        """mmseg's ``PackSegInputs`` that keeps texts."""
