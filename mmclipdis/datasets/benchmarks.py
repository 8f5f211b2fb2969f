"""Benchmarks of training-free segmentation that mmseg does not have, or has under another name."""

from __future__ import annotations

from typing import Any, ClassVar

from mmseg.datasets import (
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)
from mmseg.registry import DATASETS

from mmclipdis.datasets.files import FilesThere

# ClearCLIP, SCLIP and ProxyCLIP configs name the two sets of mmseg like this.
DATASETS.register_module(name="PascalContext60Dataset", module=PascalContextDataset)
DATASETS.register_module(name="PascalContext59Dataset", module=PascalContextDataset59)

#: Colours that the reference codes changed against PASCAL VOC's; cosmetic.
_VOC20_COLOURS = {"bird": [0, 0, 192], "boat": [128, 128, 0], "car": [192, 128, 64]}


@DATASETS.register_module()
class PascalVOC20Dataset(FilesThere):
    """PASCAL VOC without the background class: background and border pixels are ignored.

    Args:
        ann_file: split file with one name a line.
        img_suffix: of the photos.
        seg_map_suffix: of the label maps, which hold VOC's own numbers (0 = background).
        reduce_zero_label: must stay True for VOC's label maps.
        **kwargs: those of ``BaseSegDataset``.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        "classes": PascalVOCDataset.METAINFO["classes"][1:],
        "palette": [
            _VOC20_COLOURS.get(name, colour)
            for name, colour in zip(
                PascalVOCDataset.METAINFO["classes"],
                PascalVOCDataset.METAINFO["palette"],
                strict=True,
            )
        ][1:],
    }

    def __init__(
        self,
        ann_file: str = "",
        img_suffix: str = ".jpg",
        seg_map_suffix: str = ".png",
        reduce_zero_label: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            reduce_zero_label=reduce_zero_label,
            **kwargs,
        )


@DATASETS.register_module()
class COCOObjectDataset(FilesThere):
    """The 80 things of COCO and one background, which is all stuff and everything unlabelled.

    Label maps are made from COCO-Stuff's by ``tools/dataset_converters/coco_object.py``; no pixel
    is ignored. The palette is black and the first 80 colours of COCO-Stuff, duplicates included.

    Args:
        img_suffix: of the photos.
        seg_map_suffix: of the label maps.
        **kwargs: those of ``BaseSegDataset``.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        "classes": ("background", *COCOStuffDataset.METAINFO["classes"][:80]),
        "palette": [[0, 0, 0], *COCOStuffDataset.METAINFO["palette"][:80]],
    }

    def __init__(
        self,
        img_suffix: str = ".jpg",
        seg_map_suffix: str = "_instanceTrainIds.png",
        **kwargs: Any,
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
