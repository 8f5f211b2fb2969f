"""Where a detector's names come from when nobody gave any, and where they do not fit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.evaluation import get_classes
from mmdet.registry import DATASETS

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.asked_names import AskedNames
from mmclipdis.visualization import class_palette

#: Palettes that mmdet knows by name, and how many colours they have; it stops beyond them.
_COLOURS = {"coco": 133, "voc": 20, "citys": 19}


def is_guess(metainfo: Mapping[str, Any]) -> bool:
    """Whether a ``dataset_meta`` is what mmdet writes where a checkpoint has none: COCO's names.

    It spells them with ``_``, other than the ``metainfo`` of its data set.
    """
    return list(metainfo.get("classes") or ()) == get_classes("coco")


def config_metainfo(config: Any) -> dict[str, Any] | None:
    """``metainfo`` of the test data set of a config; None if it has no classes.

    Only a data set whose classes stand in its annotations is read, if these are there.

    Raises:
        ValueError: as the data set, of its ``metainfo``.
    """
    dataset = ((config or {}).get("test_dataloader") or {}).get("dataset")
    while dataset and "dataset" in dataset:  # a wrapper
        dataset = dataset["dataset"]
    if not dataset:
        return None
    built = DATASETS.build({**dataset, "pipeline": [], "lazy_init": True})
    if not built.metainfo.get("classes") and Path(built.ann_file).is_file():
        built.full_init()  # OV-LVIS has its names in its annotations
    metainfo: dict[str, Any] = dict(built.metainfo)
    return metainfo if metainfo.get("classes") else None


def warn_of_other_names(vocabulary: Vocabulary | None, metainfo: Mapping[str, Any]) -> None:
    """Say that a chosen vocabulary stays, where a checkpoint has other classes."""
    classes = tuple(metainfo.get("classes") or ())
    if vocabulary is None or not classes or classes == vocabulary.class_names or is_guess(metainfo):
        return
    warnings.warn(
        f"the dataset_meta names {_some(classes)}, the vocabulary of the config "
        f"{_some(vocabulary.class_names)}: the config's are used; take vocabulary='dataset' for "
        "those of the checkpoint",
        stacklevel=4,
    )


def check_training_names(
    groups: Sequence[tuple[AskedNames | None, Sequence[int]]], vocabulary: Vocabulary | None
) -> None:
    """Refuse samples whose labels count the names of their own text.

    Raises:
        ValueError: a text that names other classes than the vocabulary.
    """
    for names, _ in groups:
        if names is None or vocabulary is None or len(names) == vocabulary.num_classes:
            continue
        raise ValueError(
            f"a sample's text names {_some([synonyms[0] for synonyms in names])} to train on, the "
            f"vocabulary {_some(vocabulary.class_names)}: labels are places in the vocabulary; "
            "leave the text out of the data, and give the data set metainfo=dict(classes=...)"
        )


def colours_for(meta: MutableMapping[str, Any], count: int) -> None:
    """See that the palette of a ``dataset_meta`` has a colour for each of ``count`` names.

    Each is a tuple then, since mmdet draws a list as several colours.
    """
    palette = meta.get("palette")
    if isinstance(palette, str):
        if count > _COLOURS.get(palette, count):
            meta["palette"] = "random"
    elif palette and isinstance(palette[0], Sequence):
        more = class_palette(count)[len(palette) :]
        meta["palette"] = [tuple(colour) for colour in (*palette, *more)]


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 3 else ""
    count = "1 class" if len(names) == 1 else f"{len(names)} classes"
    return f"{count} ({', '.join(names[:3])}{more})"
