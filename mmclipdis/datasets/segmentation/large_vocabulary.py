"""Data sets of hundreds of classes: 16-bit labels, and names from a file of the data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from mmcv.transforms import LoadAnnotations
from mmseg.registry import DATASETS

from mmclipdis.clip.text.names import read_class_file
from mmclipdis.datasets.files import FilesThere
from mmclipdis.datasets.segmentation.label_maps import LABEL_BITS, LoadReadableAnnotations
from mmclipdis.engine.data_check import steps_of

#: The ignored label in 16 bits.
IGNORED = 65535


class LargeVocabulary(FilesThere):
    """Base of data sets with 16-bit labels whose class names are lines of a text file.

    Line i names class i, with its synonyms behind it (``"door, doors"``); such a line is the name
    of the class in ``metainfo`` and in tables. ``metainfo=dict(classes=...)`` with some of the
    names keeps these and ignores the others, as in mmseg. The palette is made up (:func:`palette`).

    Args:
        ann_file: split file with one name a line; ``''`` takes all photos of the folder.
        img_suffix: of the photos.
        seg_map_suffix: of the label maps.
        class_file: the file with the names, below ``data_root``; None takes the converter's.
        metainfo: as in mmseg.
        data_root: folder of the data set.
        ignore_index: 65535, the only value.
        reduce_zero_label: False, the only value; the converters number from 0.
        **kwargs: those of ``BaseSegDataset``.

    Raises:
        FileNotFoundError: no file of names, photos or split; says which converter writes them.
        ValueError: the file has not one line for each class; unknown names in ``metainfo``;
            another ``ignore_index``; ``LoadAnnotations`` of mmseg or mmcv, which cut to 8 bits.
    """

    #: Lines of the file of names.
    NUM_CLASSES: ClassVar[int]
    #: The command that writes the files.
    CONVERTER: ClassVar[str]
    #: The file of names that it writes.
    CLASS_FILE: ClassVar[str]

    def __init__(
        self,
        ann_file: str = "",
        img_suffix: str = ".jpg",
        seg_map_suffix: str = ".tif",
        class_file: str | None = None,
        metainfo: dict[str, Any] | None = None,
        data_root: str | None = None,
        ignore_index: int = IGNORED,
        reduce_zero_label: bool = False,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        if ignore_index != IGNORED or reduce_zero_label:
            raise ValueError(
                f"{name}: labels are 0..{self.NUM_CLASSES - 1} and {IGNORED} (ignored) in 16 bits, "
                f"got ignore_index={ignore_index} and reduce_zero_label={reduce_zero_label}; leave "
                "both out"
            )
        self.listed = self._read_names(os.path.join(data_root or "", class_file or self.CLASS_FILE))
        classes, colours = self._choose((metainfo or {}).get("classes"))
        warn_of_shared_names(name, classes)
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            metainfo={"palette": colours, **(metainfo or {}), "classes": classes},
            data_root=data_root,
            ignore_index=ignore_index,
            reduce_zero_label=reduce_zero_label,
            **kwargs,
        )
        for step in steps_of(self.pipeline.transforms):
            if isinstance(step, LoadAnnotations) and not isinstance(step, LoadReadableAnnotations):
                raise ValueError(
                    f"{name}: {type(step).__name__} of its pipeline cuts 16-bit labels to 8 bits; "
                    "use LoadReadableAnnotations"
                )

    def _read_names(self, path: str) -> tuple[str, ...]:
        name = type(self).__name__
        remedy = f"'{self.CONVERTER}' writes it"
        try:
            lines = read_class_file(path, separator=None)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{name}: no list of classes at {path!r}; {remedy}, or set data_root"
            ) from error
        except ValueError as error:
            raise ValueError(f"{name}: {error}; {remedy}") from error
        if len(lines) != self.NUM_CLASSES:
            raise ValueError(
                f"{name}: class file {path!r} has {len(lines)} lines, but the data set has "
                f"{self.NUM_CLASSES} classes, one a line; {remedy}"
            )
        return tuple(" ".join(names[0].split()) for names in lines)

    def _choose(
        self, wanted: str | Sequence[str] | None
    ) -> tuple[tuple[str, ...], list[list[int]]]:
        """The classes in use, all or those wanted (a list or a file), and their colours."""
        colours = palette(self.NUM_CLASSES)
        if wanted is None:
            return self.listed, colours
        if isinstance(wanted, str):
            wanted = [names[0] for names in read_class_file(wanted, separator=None)]
        unknown = [name for name in wanted if name not in self.listed]
        if unknown:
            raise ValueError(
                f"{type(self).__name__}: metainfo['classes'] names {unknown[:3]}, which the list "
                "of classes does not; spell them as there, with their synonyms"
            )
        return tuple(wanted), [colours[self.listed.index(name)] for name in wanted]

    def get_label_map(self, new_classes: Sequence[str] | None = None) -> dict[int, int] | None:  # type: ignore[override]
        """New number of each class where only some are used, with 65535 for the others."""
        kept = tuple(new_classes or self.listed)
        if kept == self.listed:
            return None
        return {
            i: kept.index(name) if name in kept else IGNORED for i, name in enumerate(self.listed)
        }

    def load_data_list(self) -> list[dict[str, Any]]:
        """List images and label maps, the latter marked as 16-bit.

        Raises:
            FileNotFoundError: the image folder, the split file or the photos are missing.
        """
        listed = super().load_data_list()
        for sample in listed:
            sample[LABEL_BITS] = 16
        return listed


@DATASETS.register_module()
class ADE20K847Dataset(LargeVocabulary):
    """ADE20K of 2021 with 847 classes (A-847); 2,000 photos for validation.

    Its files are written by ``tools/dataset_converters/ade20k_full.py``. Ten classes share their
    first name with an earlier one (three are a "bag"): in a model that reads first names only, as
    CAT-Seg does, their scores tie.

    Args:
        **kwargs: see :class:`LargeVocabulary`.
    """

    NUM_CLASSES = 847
    CONVERTER = "python tools/dataset_converters/ade20k_full.py ADE20K_2021_17_01"
    CLASS_FILE = "classes.txt"


@DATASETS.register_module()
class PascalContext459Dataset(LargeVocabulary):
    """PASCAL Context with all of its 459 classes (PC-459); about 5,100 photos for validation.

    Its files are written by ``tools/dataset_converters/pascal_context.py``. Class 430 is called
    "unknown" and is scored like the others.

    Args:
        **kwargs: see :class:`LargeVocabulary`.
    """

    NUM_CLASSES = 459
    CONVERTER = "python tools/dataset_converters/pascal_context.py data/VOCdevkit/VOC2010"
    CLASS_FILE = "SegmentationClassContext459/classes.txt"


def palette(count: int) -> list[list[int]]:
    """``count`` distinct colours, none of them black: PASCAL VOC's, which go on without end.

    The bits of the colour's number, from 1, are dealt to red, green and blue in turn, the lowest to
    the brightest: 1 is (128, 0, 0), 2 (0, 128, 0), 8 (64, 0, 0). Distinct up to 2^24 - 1.
    """
    return [
        [sum(((n >> (3 * i + c)) & 1) << (7 - i) for i in range(8)) for c in range(3)]
        for n in range(1, count + 1)
    ]


def warn_of_shared_names(dataset: str, classes: Sequence[str]) -> None:
    """Warn, once and naming them, of classes whose first name an earlier class has.

    A model that reads first names gives such classes equal scores, and one of them gets the pixels.

    Args:
        dataset: its name, for the message.
        classes: ``"name, synonym, ..."`` for each class.
    """
    owners: dict[str, list[int]] = {}
    for i, names in enumerate(classes):
        owners.setdefault(" ".join(names.split(", ")[0].lower().split()), []).append(i)
    shared = {name: numbers for name, numbers in owners.items() if len(numbers) > 1}
    if shared:
        losers = sum(len(numbers) - 1 for numbers in shared.values())
        listed = "; ".join(f"{name} ({', '.join(map(str, n))})" for name, n in shared.items())
        warnings.warn(
            f"{dataset}: {losers} of {len(classes)} classes share their first name with an earlier "
            f"one: {listed}. Where a model reads first names only, their scores tie, so that they "
            "can never both win: the later ones get (next to) no pixel, and an IoU of 0",
            stacklevel=2,
        )
