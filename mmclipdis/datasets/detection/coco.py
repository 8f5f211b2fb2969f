"""OV-COCO in mmdet: the stock CocoDataset with labels by name, base and novel classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from mmclipdis.datasets.detection.classes import (
    BASE_CLASSES,
    NOVEL_CLASSES,
    OV_CLASSES,
    UNUSED_CLASSES,
)
from mmclipdis.datasets.detection.pseudo_boxes import check_pipeline, merge_pseudo_boxes, unpack
from mmclipdis.engine.data_check import check_boxes
from mmclipdis.utils.coco_boxes import check_coco
from mmclipdis.utils.coco_json import read_coco
from mmclipdis.utils.names import check_metainfo
from mmclipdis.utils.paths import check_samples


@DATASETS.register_module()
class OVCocoDataset(CocoDataset):
    """COCO boxes for open-vocabulary detection: 48 base classes in training, 17 novel in test.

    The label of a box is the position of its category's *name* in ``metainfo['classes']``. The
    stock data set numbers the categories of the json instead, which shifts all labels if the json
    lists 48 categories and the classes are 65. Here jsons with 48, 65 and 80 categories give the
    same labels.

    ``metainfo``: ``classes`` (the 65), ``base_classes``, ``novel_classes`` (parts of ``classes``;
    ``OVCocoMetric`` and the detector read them) and ``unused_classes`` (what else the json may
    list). For other data give ``classes`` and one of the two parts; the other is the rest.
    Categories without any annotation, such as the root that Roboflow writes, may always be listed.

    Args:
        novel_in_training: Keep annotations of novel classes in training. They are left out by
            default, and images that have no others with them, so that the official
            ``instances_train2017.json`` gives the training set of OV-COCO too.
        pseudo_boxes: File of boxes whose class is unknown, below ``data_root`` like ``ann_file``
            (:mod:`mmclipdis.datasets.detection.pseudo_boxes`). In training they are boxes with
            the label -1 and ``weights`` (1 for all others); they keep no image in that has no
            others. In test they do not count, and the file is not read. All transforms of mmdet
            take them along, those that mix images as well, but for those that need masks or
            classes of all boxes.
        **kwargs: Of ``CocoDataset``. ``filter_cfg`` is ``dict(filter_empty_gt=True, min_size=32)``
            if it is not given: in training, images without annotations and those with a side
            below 32 px are left out.

    Raises:
        FileNotFoundError: no such annotation file.
        ValueError: it is broken, lacks classes, or lists unknown ones; ``metainfo`` contradicts
            itself; a photo lies outside ``data_root``; as ``merge_pseudo_boxes``.
    """

    #: ``VocabularyHook`` need not doubt the labels where the json lists fewer categories.
    labels_by_name = True

    METAINFO: dict[str, Any] = {
        "classes": OV_CLASSES,
        "base_classes": BASE_CLASSES,
        "novel_classes": NOVEL_CLASSES,
        "unused_classes": UNUSED_CLASSES,
    }

    def __init__(
        self,
        *args: Any,
        novel_in_training: bool = False,
        pseudo_boxes: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.novel_in_training = novel_in_training
        if pseudo_boxes is not None and not isinstance(pseudo_boxes, (str, os.PathLike)):
            raise TypeError(f"pseudo_boxes is the path of one file, got {pseudo_boxes!r}")
        self.pseudo_boxes = pseudo_boxes
        kwargs.setdefault("filter_cfg", {"filter_empty_gt": True, "min_size": 32})
        prefix = dict(kwargs.get("data_prefix") or {"img": ""})
        if "img" not in prefix:
            raise ValueError(
                f"{type(self).__name__} takes the folder of the photos as data_prefix=dict(img=...)"
                f", as mmdet's data sets do; got {prefix}"
            )
        kwargs["data_prefix"] = prefix
        super().__init__(*args, **kwargs)

    @classmethod
    def _load_metainfo(cls, metainfo: Any = None) -> dict[str, Any]:
        loaded: dict[str, Any] = super()._load_metainfo(metainfo)
        check_metainfo(loaded, cls.__name__)
        _rest_of_classes(loaded, metainfo)
        classes = list(loaded.get("classes", ()))
        groups = {key: list(loaded.get(key, ())) for key in ("base_classes", "novel_classes")}
        flagged = groups["base_classes"] + groups["novel_classes"]
        for name in classes:
            if classes.count(name) > 1 or flagged.count(name) != 1:
                raise ValueError(
                    f"{cls.__name__}: class {name!r} must be once in metainfo.classes, and in one "
                    "of metainfo.base_classes and metainfo.novel_classes"
                )
        # With fewer classes than the default the groups shrink; the json may list the others.
        for key, names in groups.items():
            loaded[key] = tuple(name for name in names if name in classes)
        left_out = [name for name in flagged if name not in classes]
        loaded["unused_classes"] = (*loaded.get("unused_classes", ()), *left_out)
        return loaded

    # CocoDataset calls it with the path, like the class that it holds under this name.
    def COCOAPI(self, path: str) -> COCO:
        """The annotation file; its categories have been compared with the classes."""
        content = read_coco(path, "set data_root and ann_file")
        found = check_coco(content, path, self.data_prefix.get("img"))
        self._say(found.filled_line(), "filled in", logging.INFO)
        self._say(found.dropped_line(), "boxes that do not count:")
        self._annotated = {note["category_id"] for note in content["annotations"]}
        self._numbered = self._number(content["categories"])
        api = COCO()
        api.dataset = content
        api.createIndex()
        api.img_ann_map, api.cat_img_map = api.imgToAnns, api.catToImgs
        return api

    def _number(self, categories: Sequence[Mapping[str, Any]]) -> dict[int, int]:
        """Label of each category id of the file that has one."""
        where = f"{type(self).__name__}: {self.ann_file!r}"
        info = self._metainfo
        labels = {name: label for label, name in enumerate(info["classes"])}
        names = [category["name"] for category in categories]
        used = {category["name"] for category in categories if category["id"] in self._annotated}
        unknown = sorted(used - set(labels) - set(info["unused_classes"]))
        if unknown:
            raise ValueError(
                f"{where} lists {len(unknown)} unknown categories: {_some(unknown)}; set "
                "metainfo.classes, base_classes and novel_classes (unused_classes: to be ignored)"
            )
        needed = info["classes"] if self.test_mode else info["base_classes"]
        lacking = [name for name in needed if name not in names]
        if lacking:
            raise ValueError(
                f"{where} lacks {len(lacking)} of the categories: {_some(lacking)}; give "
                "metainfo.classes the names of the json (that of OV-COCO comes from "
                "tools/dataset_converters/ov_coco.py)"
            )
        numbered = {c["id"]: labels[c["name"]] for c in categories if c["name"] in labels}
        if self.test_mode and list(numbered.values()) != sorted(numbered.values()):
            # mmdet's metrics turn labels into ids by the order of the json.
            raise ValueError(
                f"{where} lists the categories in another order than metainfo.classes, so that "
                "the metric would mix them up; reorder either"
            )
        return numbered

    def load_data_list(self) -> list[dict[str, Any]]:
        """One dict an image, as ``CocoDataset``'s, with labels by name."""
        if self.backend_args is None and not Path(self.ann_file).is_file():
            raise FileNotFoundError(
                f"{type(self).__name__}: no annotation file {self.ann_file!r}; set data_root and "
                "ann_file"
            )
        # Not super(): LVIS's own reads classes by name and needs a package to read a json.
        images: list[dict[str, Any]] = CocoDataset.load_data_list(self)
        check_samples(self, images)
        listed: list[int] = self.cat_ids  # those of the classes, in the order of the file
        novel = {self._metainfo["classes"].index(name) for name in self._metainfo["novel_classes"]}
        dropped = set() if self.test_mode or self.novel_in_training else novel
        for image in images:
            for box in image["instances"]:
                box["bbox_label"] = self._numbered[listed[box["bbox_label"]]]
            image["instances"] = [
                box for box in image["instances"] if box["bbox_label"] not in dropped
            ]
        self.cat2label = {i: self._numbered[i] for i in listed}
        # Only these count when images without annotations are left out.
        self.cat_ids: list[int] = [i for i in listed if self.cat2label[i] not in dropped]
        if self._with_pseudo_boxes:
            self._add_pseudo_boxes(images, os.fspath(self.pseudo_boxes or ""))
        return images

    @property
    def _with_pseudo_boxes(self) -> bool:
        return self.pseudo_boxes is not None and not self.test_mode

    def _add_pseudo_boxes(self, images: list[dict[str, Any]], name: str) -> None:
        check_pipeline(self.pipeline.transforms)
        given = os.path.join(self.data_root or "", name)
        with get_local_path(given, backend_args=self.backend_args) as path:
            found = merge_pseudo_boxes(images, str(path), self.ann_file)
        self._say(
            f"{found.boxes:,} pseudo boxes of {given} in {found.images:,} of {len(images):,} "
            "images",
            level=logging.INFO,
        )
        for line in found.dropped_lines():
            self._say(line, f"of the pseudo boxes of {given}")

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels of the boxes of an image, without those of unknown class."""
        return [label for label in super().get_cat_ids(idx) if label >= 0]

    def prepare_data(self, idx: int) -> Any:
        """An image through the pipeline; with pseudo boxes its boxes have ``weights``."""
        packed = super().prepare_data(idx)
        if self._with_pseudo_boxes and isinstance(packed, dict) and "data_samples" in packed:
            unpack(packed["data_samples"])  # for stock steps: ours has done it
        return packed

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out, in training, what ``filter_cfg`` says, and say how many images stay.

        Raises:
            ValueError: No image is left, or in training no box to learn from.
        """
        items = self.data_list
        kept: list[dict[str, Any]] = super().filter_data()
        if len(kept) < len(items) or not kept:
            least = (self.filter_cfg or {}).get("min_size", 0)
            small = sum(min(item["width"], item["height"]) < least for item in items)
            why = (
                f"{len(items) - len(kept) - small:,} have no box of the classes in use, {small:,} "
                f"have a side below {least} px (filter_cfg)"
            )
            if not kept:
                where = f"{type(self).__name__}: {self.ann_file!r}"
                raise ValueError(f"{where} has {len(items):,} images, none is left: {why}")
            self._say(f"{len(kept):,} of {len(items):,} images are used: {why}", level=logging.INFO)
        check_boxes(self, kept, training=not self.test_mode)  # its warning is DataCheckHook's
        return kept

    def _say(self, text: str, before: str = "", level: int = logging.WARNING) -> None:
        if text:
            where = f"{type(self).__name__} {self.ann_file}:"
            print_log(" ".join(filter(None, (where, before, text))), logger="current", level=level)


def _rest_of_classes(loaded: dict[str, Any], given: Any) -> None:
    """Of base and novel classes the part that is not given is the rest of the given classes."""
    given = given or {}
    for one, other in (("base_classes", "novel_classes"), ("novel_classes", "base_classes")):
        if "classes" in given and one in given and other not in given:
            loaded[other] = tuple(name for name in loaded["classes"] if name not in loaded[one])


def _some(names: Sequence[str]) -> str:
    """The first five names, quoted."""
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
