"""Generated data in the layout that a config reads, whichever kind of data set it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, DefaultScope

from mmclipdis.apis.reproduction.miniature_boxes import (
    coco_categories,
    write_coco,
    write_panoptic,
    write_pseudo_boxes,
    write_voc,
)
from mmclipdis.apis.reproduction.miniature_segmentation import write_masks, write_segmentation
from mmclipdis.datasets.detection.classes import COCO_CLASSES

#: What is written for a data set: ``data_root``, its config, its class, the seed.
Writer = Callable[[Path, Mapping[str, Any], Any, int], object]
#: Frequency of LVIS' categories in turn; the shares of LVIS are other ones.
_FREQUENCIES = "fcr"


def write_data(
    dataset: Mapping[str, Any], root: Path, scope: str, seed: int, masks: Path | None = None
) -> None:
    """Write what a data set reads below ``root``.

    Args:
        dataset: Its config.
        root: ``data_root`` of the miniature.
        scope: ``default_scope`` of the config.
        seed: Of pictures and labels.
        masks: Folder for a file of masks a photo (CorrCLIP); None for none.

    Raises:
        ValueError: there is no miniature of such a data set.
    """
    kind = dataset_class(dataset, scope)
    for base in kind.__mro__:
        writer = WRITERS.get(base.__name__)
        if writer is not None:
            written = writer(root, dataset, kind, seed)
            if masks is not None:
                if not isinstance(written, list):
                    raise ValueError(f"no miniature of the masks of {kind.__name__}")
                write_masks(masks, written, seed)
            return
    raise ValueError(f"no miniature of a {kind.__name__}; known are {', '.join(WRITERS)}")


def dataset_class(dataset: Mapping[str, Any], scope: str) -> Any:
    """The class of a data set's config.

    Raises:
        ValueError: there is none of this name.
    """
    with (
        DefaultScope.overwrite_default_scope(scope),
        DATASETS.switch_scope_and_registry(None) as registry,
    ):
        kind = registry.get(dataset["type"])
    if kind is None:
        raise ValueError(f"no miniature of {dataset['type']!r}: no data set has this name")
    return kind


def classes_of(dataset: Mapping[str, Any], kind: Any) -> tuple[str, ...]:
    """Names of the classes: the config's, or those of the kind of data set."""
    own = (dataset.get("metainfo") or {}).get("classes")
    return tuple(own or kind.METAINFO["classes"])


def _open_coco(root: Path, dataset: Mapping[str, Any], kind: Any, seed: int) -> None:
    """OV-COCO, and COCO's own layout: novel classes are not annotated in training."""
    training = not dataset.get("test_mode")
    info = {**kind.METAINFO, **(dataset.get("metainfo") or {})}
    withheld = info.get("novel_classes", ()) if training else ()
    photos = root / (dataset.get("data_prefix") or {}).get("img", "")
    categories = coco_categories(classes_of(dataset, kind))
    write_coco(root / dataset["ann_file"], photos, categories, seed, withheld=withheld)
    if dataset.get("pseudo_boxes"):
        write_pseudo_boxes(root / dataset["pseudo_boxes"], seed)


def _lvis(root: Path, dataset: Mapping[str, Any], kind: Any, seed: int) -> None:
    """LVIS v1: 1,203 classes with a frequency, photos by the address that COCO gave them."""
    official = next(base for base in kind.__mro__ if base.__name__ == "LVISV1Dataset")
    names = official.METAINFO["classes"]
    categories = [
        dict(id=i, name=name, frequency=_FREQUENCIES[i % 3]) for i, name in enumerate(names, 1)
    ]
    training = not dataset.get("test_mode")
    rare = [c["name"] for c in categories if c["frequency"] == "r"] if training else []
    photos = root / (dataset.get("data_prefix") or {}).get("img", "")
    folder = "train2017" if training else "val2017"
    write_coco(
        root / dataset["ann_file"],
        photos,
        categories,
        seed,
        name=folder + "/{:012d}.jpg",
        withheld=rare,
        lvis=True,
    )
    if dataset.get("pseudo_boxes"):
        write_pseudo_boxes(root / dataset["pseudo_boxes"], seed)


def _coco_labels(root: Path, dataset: Mapping[str, Any], kind: Any, seed: int) -> None:
    """COCO 2014, whose photos have the split in their names."""
    folder = (dataset.get("data_prefix") or {}).get("img_path", "")
    name = f"COCO_{folder}_" + "{:012d}.jpg" if folder.endswith("2014") else "{:012d}.jpg"
    names = (dataset.get("metainfo") or {}).get("classes") or COCO_CLASSES
    categories = coco_categories(names)
    write_coco(root / dataset["ann_file"], root / folder, categories, seed, name=name)


def _images(root: Path, dataset: Mapping[str, Any], kind: Any, seed: int) -> None:
    """Photos, and the json of COCO that lists them where the config names one."""
    photos = root / (dataset.get("data_prefix") or {}).get("img_path", "")
    listing = dataset.get("ann_file") or "instances.json"
    write_coco(root / listing, photos, coco_categories(COCO_CLASSES), seed)


def _panoptic(root: Path, dataset: Mapping[str, Any], kind: Any, seed: int) -> None:
    prefix = dataset["data_prefix"]
    folders = (root / prefix["img_path"], root / prefix["seg_map_path"])
    write_panoptic(root / dataset["ann_file"], *folders, seed)


def _voc_labels(root: Path, dataset: Mapping[str, Any], kind: Any, seed: int) -> None:
    write_voc(root, dataset["split"], classes_of(dataset, kind), seed)


def _voc_boxes(root: Path, dataset: Mapping[str, Any], kind: Any, seed: int) -> None:
    below = dataset["data_prefix"]["sub_data_root"]
    write_voc(root / below, Path(dataset["ann_file"]).stem, classes_of(dataset, kind), seed)


#: Name of a class, or of what it derives from -> its layout.
WRITERS: Mapping[str, Writer] = {
    "BaseSegDataset": write_segmentation,
    "OVLVISDataset": _lvis,
    "XMLDataset": _voc_boxes,
    "BaseDetDataset": _open_coco,
    "VOCMultiLabelDataset": _voc_labels,
    "CocoMultiLabelDataset": _coco_labels,
    "DistillImageDataset": _images,
    "PanopticRegionsDataset": _panoptic,
}
