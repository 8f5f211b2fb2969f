"""Benchmarks of training-free segmentation that mmseg does not have, or has under another name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mmseg.datasets import (
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)
from mmseg.registry import DATASETS

from mmclipdis.datasets.files import FilesThere
from mmclipdis.utils.paths import check_samples

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
class CATSegContext59Dataset(PascalContextDataset59):
    """mmseg's ``PascalContextDataset59`` with the name of class 49 that CAT-Seg is asked for.

    It is "diningtable", as in PASCAL VOC; mmseg says "table". Labels, files and arguments are
    mmseg's.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        "classes": tuple(
            "diningtable" if name == "table" else name
            for name in PascalContextDataset59.METAINFO["classes"]
        ),
        "palette": PascalContextDataset59.METAINFO["palette"],
    }

    def load_data_list(self) -> list[dict[str, Any]]:
        """As mmseg's; raises ValueError for photos outside ``data_root``."""
        listed: list[dict[str, Any]] = super().load_data_list()
        check_samples(self, listed)
        return listed


@DATASETS.register_module()
class PascalVOC20bDataset(FilesThere):
    """PASCAL VOC whose background is named by 39 stuff and thing classes of PASCAL Context.

    Classes 0 to 19 are VOC's; 20 to 58 are what else a photo may show ("sky", "wall", ...) and
    stand for the background together, which the labels call 20. ``metainfo['background_from']``
    tells :class:`~mmclipdis.evaluation.OpenVocabIoUMetric` so. VOC's own label maps (0 =
    background, 255 = border) are renumbered when they are read.

    Args:
        ann_file: split file with one name a line.
        img_suffix: of the photos.
        seg_map_suffix: of the label maps.
        **kwargs: those of ``BaseSegDataset``.

    Raises:
        ValueError: other classes in ``metainfo``, or ``reduce_zero_label``.

    Source: CAT-Seg (CVPR 2024), released code.
    """

    _VOC20 = PascalVOC20Dataset.METAINFO
    _OTHERS = tuple(
        (name, colour)
        for name, colour in zip(
            CATSegContext59Dataset.METAINFO["classes"],
            CATSegContext59Dataset.METAINFO["palette"],
            strict=True,
        )
        if name not in PascalVOC20Dataset.METAINFO["classes"]
    )
    METAINFO: ClassVar[dict[str, Any]] = {
        "classes": (*_VOC20["classes"], *(name for name, _ in _OTHERS)),
        "palette": [*_VOC20["palette"], *(colour for _, colour in _OTHERS)],
        "background_from": 20,
    }

    def __init__(
        self,
        ann_file: str = "",
        img_suffix: str = ".jpg",
        seg_map_suffix: str = ".png",
        reduce_zero_label: bool = False,
        **kwargs: Any,
    ) -> None:
        if reduce_zero_label:
            raise ValueError(
                "PascalVOC20bDataset renumbers VOC's labels by itself (0 becomes 20, 1..20 become "
                "0..19); leave reduce_zero_label out"
            )
        super().__init__(
            ann_file=ann_file, img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs
        )

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """VOC's numbers -> those of the benchmark."""
        if new_classes is not None and tuple(new_classes) != cls.METAINFO["classes"]:
            raise ValueError(
                f"{cls.__name__} has fixed classes; for other names of the background give the "
                f"model a vocabulary of {len(cls.METAINFO['classes'])} names, too (the first 20 "
                "VOC's, all others the background)"
            )
        return {0: 20, **{old: old - 1 for old in range(1, 21)}}


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
