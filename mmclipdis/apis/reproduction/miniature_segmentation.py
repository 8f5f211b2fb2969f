"""Label maps in the layout that a data set of mmseg reads, of whichever benchmark."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmclipdis.apis.reproduction.miniature_photos import COUNT, regions, write_photo
from mmclipdis.datasets.segmentation.large_vocabulary import IGNORED, LargeVocabulary
from mmclipdis.utils.whole_files import make_folder, write_picture, write_text


def write_segmentation(root: Path, dataset: Mapping[str, Any], kind: type, seed: int) -> list[str]:
    """Write photos, label maps, and the list of them and of classes where there is one.

    Args:
        root: ``data_root`` of the miniature.
        dataset: Config of the data set.
        kind: Its class, a ``BaseSegDataset``.
        seed: Of pictures and labels.

    Returns:
        Paths of the photos.
    """
    if issubclass(kind, LargeVocabulary):
        write_names(root, dataset, kind)
    values, ignored = label_values(dataset, kind)
    photos, maps = (root / dataset["data_prefix"][key] for key in ("img_path", "seg_map_path"))
    endings = [_setting(dataset, kind, key) for key in ("img_suffix", "seg_map_suffix")]
    # Cityscapes' names go on behind the number, and each town has a folder
    name = "town/town_{:06d}_000019" if endings[0].startswith("_") else "{:012d}"
    stems = [name.format(number) for number in range(COUNT)]
    paths = []
    for number, stem in enumerate(stems):
        paths.append(str(photos / f"{stem}{endings[0] or '.jpg'}"))
        write_photo(Path(paths[-1]), number, seed)
        labels = draw_labels(number, values, ignored, seed)
        path = maps / f"{stem}{endings[1]}"
        make_folder(path.parent)
        write_picture(path, Image.fromarray(labels))
    if dataset.get("ann_file"):
        path = root / dataset["ann_file"]
        make_folder(path.parent)
        write_text(path, "".join(f"{stem}\n" for stem in stems))
    return paths


def write_names(root: Path, dataset: Mapping[str, Any], kind: type[LargeVocabulary]) -> None:
    """The list of classes that the converter of a large vocabulary leaves."""
    path = root / (dataset.get("class_file") or kind.CLASS_FILE)
    make_folder(path.parent)
    lines = (f"class {number}, synonym {number}\n" for number in range(kind.NUM_CLASSES))
    write_text(path, "".join(lines))


def label_values(dataset: Mapping[str, Any], kind: Any) -> tuple[NDArray[Any], int]:
    """What label maps of a benchmark hold, whichever classes are used, and what is ignored."""
    if issubclass(kind, LargeVocabulary):
        return np.arange(kind.NUM_CLASSES, dtype=np.uint16), IGNORED
    names = getattr(kind, "METAINFO", {}).get("classes")
    if names is None:  # a data set of one's own
        names = dataset["metainfo"]["classes"]
    elif "background_from" in kind.METAINFO:  # asked for more names than the labels have
        return np.arange(1 + kind.METAINFO["background_from"], dtype=np.uint8), 255
    shift = int(bool(_setting(dataset, kind, "reduce_zero_label")))
    return np.arange(len(names) + shift, dtype=np.uint8), dataset.get("ignore_index", 255)


def draw_labels(number: int, values: NDArray[Any], ignored: int, seed: int) -> NDArray[Any]:
    """A value for each region of a photo ``(h, w)``; the first rows are ignored."""
    places, _ = regions(number, seed)
    rng = np.random.default_rng([seed, number, len(values)])
    labels = rng.choice(values, places.max() + 1)[places]
    labels[:2] = ignored
    return labels


def write_masks(folder: Path, photos: list[str], seed: int) -> None:
    """A file of masks for each photo, as CorrCLIP's code saves SAM's."""
    make_folder(folder)
    for number, photo in enumerate(photos):
        places, _ = regions(number, seed)
        np.savez(folder / f"{Path(photo).stem}.npz", instance_mask=(places + 1).astype(np.int32))


def _setting(dataset: Mapping[str, Any], kind: Any, key: str) -> Any:
    """An option of a data set: the config's, or the default along its bases."""
    if dataset.get(key) is not None:
        return dataset[key]
    for base in kind.__mro__:
        found = inspect.signature(base.__init__).parameters.get(key)
        if found is not None:
            return found.default
    raise ValueError(f"no miniature of {kind.__name__}: it has no option {key}")
