"""Which classes an image shows: COCO's annotations (instances or panoptic) as 0/1 labels."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from numpy.typing import NDArray

from mmclipdis.datasets.recognition.partial_labels import known_labels, load_mask
from mmclipdis.utils.coco_json import read_coco
from mmclipdis.utils.names import name_list
from mmclipdis.utils.paths import check_samples


class MultiLabelDataset(BaseDataset):
    """Base of the data sets that say for every image and class whether the class is there.

    An item of the data list is one image: ``img_path``, ``img_id`` and ``gt_score``, int8 (N,): 1
    present, 0 absent, -1 unknown. A subclass reads them in ``load_data_list``. Here images
    without any present class are left out, and labels are hidden at random (DualCoOp's partial
    labels). The log tells how many of each.

    Args:
        ann_file: list or json of the images.
        data_root: joined before the other paths.
        data_prefix: ``dict(img_path=...)``, the folder of the images.
        filter_empty: leave out images that show no class; in training and in testing.
        partial: share of the labels that are known, in (0, 1]; each label of each image is
            known with this probability. Which ones depends on ``partial_seed`` and on the name or
            id of the image only: they are the same in every rank, worker and epoch, and those
            known at a smaller share are known at a larger one. Not applied with ``test_mode``.
        partial_seed: of that draw.
        partial_mask_file: ``.npy`` with bool (images, N), true where the label is known, in place
            of the draw; rows in the order of the data set, after ``filter_empty`` and before
            ``indices``. Not applied with ``test_mode``.
        pipeline, test_mode, indices, lazy_init, serialize_data, max_refetch: those of
            ``BaseDataset``.
        metainfo: ``dict(classes=...)`` selects classes by name and gives their order.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: annotations that contradict each other, an unknown class in ``metainfo``, an
            option out of range, no image left, or a mask of another size.
    """

    METAINFO: dict[str, Any] = {}

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        data_prefix: Mapping[str, str] | None = None,
        filter_empty: bool = True,
        partial: float = 1.0,
        partial_seed: int = 0,
        partial_mask_file: str | None = None,
        pipeline: Sequence[Any] = (),
        test_mode: bool = False,
        metainfo: Mapping[str, Any] | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
        serialize_data: bool = True,
        max_refetch: int = 1000,
    ) -> None:
        if not 0 < partial <= 1:
            raise ValueError(f"partial must be in (0, 1], got {partial}")
        if partial_seed < 0:
            raise ValueError(f"partial_seed must be >= 0, got {partial_seed}")
        if partial < 1 and partial_mask_file:
            raise ValueError("partial draws a mask and partial_mask_file reads one: set only one")
        if partial_mask_file and not os.path.isabs(partial_mask_file):
            partial_mask_file = os.path.join(data_root, partial_mask_file)
        self.filter_empty = filter_empty
        self.partial = partial
        self.partial_seed = partial_seed
        self.partial_mask_file = partial_mask_file
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix={"img_path": "", **(data_prefix or {})},
            pipeline=list(pipeline),
            test_mode=test_mode,
            metainfo=metainfo,
            indices=indices,
            lazy_init=lazy_init,
            serialize_data=serialize_data,
            max_refetch=max_refetch,
        )

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out images without any present class, then hide labels; say how many.

        Raises:
            ValueError: no image is left.
        """
        items: list[dict[str, Any]] = self.data_list
        shown = [item for item in items if (item["gt_score"] == 1).any()]
        kept = shown if self.filter_empty else items
        classes, empty = self.metainfo["classes"], len(items) - len(shown)
        fate = "left out" if self.filter_empty else "kept"
        self._say(
            f"{len(kept)} images, {len(classes)} classes; {empty} images without any of them {fate}"
        )
        if not kept:
            raise ValueError(
                f"{type(self).__name__}: no image is left of the {len(items)} in {self.ann_file}: "
                "none shows a class; filter_empty=False keeps them"
            )
        there = np.any([item["gt_score"] == 1 for item in kept], axis=0)
        if not there.all():
            names = ", ".join(name for name, hit in zip(classes, there) if not hit)
            self._say(f"{int((~there).sum())} classes that no image shows: {names}")
        self._hide_labels(kept)
        return kept

    def _hide_labels(self, items: list[dict[str, Any]]) -> None:
        """Set the labels that are not to be known to -1."""
        if self.partial == 1 and not self.partial_mask_file:
            return
        if self.test_mode:
            self._say("all labels are used in testing; partial labels are for training")
            return
        size = (len(items), len(self.metainfo["classes"]))
        if self.partial_mask_file:
            mask = load_mask(self.partial_mask_file, size)
        else:
            names = [str(item["img_id"]) for item in items]
            mask = known_labels(names, size[1], self.partial, self.partial_seed)
        for item, known in zip(items, mask):
            item["gt_score"] = np.where(known, item["gt_score"], np.int8(-1))
        nothing = int((~mask.any(1)).sum())
        self._say(
            f"{int(mask.sum())} of {mask.size} labels are known ({100 * mask.mean():.2f} %); "
            f"{nothing} images without a known label"
        )

    def _say(self, text: str) -> None:
        print_log(f"{type(self).__name__} {self.ann_file}: {text}", logger="current")

    def check_folder(self, key: str) -> str:
        """The folder ``data_prefix[key]``.

        Raises:
            FileNotFoundError: it is not there.
        """
        folder: str = self.data_prefix[key]
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"{type(self).__name__}: no folder {folder!r}; set data_root, or "
                f"data_prefix.{key} below it"
            )
        return folder


@DATASETS.register_module()
class CocoMultiLabelDataset(MultiLabelDataset):
    """Labels from a COCO json, of instances or panoptic: a class is there if annotated at all.

    Any annotation counts, of any size, crowds too (the protocol of DualCoOp and DCLIP). Classes
    are the categories of the json sorted by id, or those that ``metainfo`` selects. The images
    are in the order of the json.

    Of COCO-2014, 82,783 and 40,504 images, 82,081 and 40,137 show one of the 80 classes.

    Args:
        ann_file: ``annotations/instances_*.json``, or ``annotations/panoptic_*.json`` for the
            stuff as well.
        **kwargs: see :class:`MultiLabelDataset`.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the json into ``img_path``, ``img_id`` and ``gt_score`` of every image."""
        folder = self.check_folder("img_path")
        content = read_coco(self.ann_file, "set ann_file, or data_root above it")
        try:
            categories = sorted(content["categories"], key=lambda category: category["id"])
            names = [str(category["name"]) for category in categories]
            classes = select_classes(names, self._metainfo.get("classes"), self.ann_file)
            self._metainfo["classes"] = classes
            order = {name: label for label, name in enumerate(classes)}
            # None: listed, but not selected.
            labels = {c["id"]: order.get(name) for c, name in zip(categories, names)}
            scores = {i["id"]: np.zeros(len(classes), np.int8) for i in content["images"]}
            self._mark(content["annotations"], labels, scores)
            items = [
                {
                    "img_path": os.path.join(folder, image["file_name"]),
                    "img_id": image["id"],
                    "gt_score": scores[image["id"]],
                }
                for image in content["images"]
            ]
            check_samples(self, items)
            return items
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.ann_file}: an image, annotation or category has no {error}; it must be "
                "COCO's json of instances or panoptic segments"
            ) from error

    def _mark(
        self,
        notes: Sequence[Mapping[str, Any]],
        labels: Mapping[Any, int | None],
        scores: Mapping[Any, NDArray[np.int8]],
    ) -> None:
        """Set the score of every annotated class to 1."""
        for note in notes:
            image = note["image_id"]
            if image not in scores:
                raise ValueError(
                    f"{self.ann_file}: an annotation has image_id {image!r}, which is not among "
                    f"the {len(scores)} images; repair or replace the json"
                )
            for found in note.get("segments_info", (note,)):
                category = found["category_id"]
                if category not in labels:
                    raise ValueError(
                        f"{self.ann_file}: an annotation of image {image} has category_id "
                        f"{category!r}, which is none of the {len(labels)} categories; repair or "
                        "replace the json"
                    )
                label = labels[category]
                if label is not None:
                    scores[image][label] = 1


def select_classes(
    known: Sequence[str], chosen: Sequence[str] | None, source: str
) -> tuple[str, ...]:
    """The classes of a data set: all that are known, or the chosen ones in their order.

    Args:
        known: names in the data set.
        chosen: names wanted, or None for all.
        source: file that names the classes, for the messages.

    Raises:
        ValueError: a chosen class is not known, or a name stands for two classes.
    """
    if chosen is not None:
        chosen = name_list(chosen, f"metainfo['classes'] (of {source})", twice=True)
    classes = tuple(known if chosen is None else chosen)
    double = sorted({name for name in classes if classes.count(name) > 1})
    if double:
        raise ValueError(f"{source}: more than one class is called {', '.join(double)}")
    for name in classes:
        if name not in known:
            close = difflib.get_close_matches(str(name), known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}"
            raise ValueError(f"{source} has no class {name!r}; {hint}")
    return classes
