"""Panoptic annotations as a list of regions to be named: DeCLIP's and CLIPSelf's evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mmclipdis.utils.coco_boxes import is_box
from mmclipdis.utils.coco_json import check_parts, read_json
from mmclipdis.utils.paths import check_samples


@DATASETS.register_module()
class PanopticRegionsDataset(BaseDataset):
    """The segments of COCO panoptic annotations, each to be classified (DeCLIP, section 5.1).

    Classes are the categories of the json sorted by id; class i is label i. ``metainfo`` gets
    ``classes``, ``isthing`` (a bool a class), ``thing_classes`` and ``stuff_classes``. Segments
    with ``iscrowd`` count like all others, as in the reference.

    An item of the data list is one image: ``img_path``, ``seg_map_path`` (the PNG), ``img_id``,
    ``height``, ``width`` in pixels, and ``segments``, dicts with ``id`` (in the PNG), ``label``,
    ``isthing`` and ``bbox`` (x, y, w, h in pixels). The pipeline starts with
    :class:`~mmclipdis.datasets.distillation.region_transforms.LoadPanopticRegions`.

    Args:
        ann_file: the panoptic json, ``annotations/panoptic_val2017.json``.
        data_root: joined before the other paths.
        data_prefix: folders of the photos (``img_path``) and of the PNGs (``seg_map_path``).
        categories_file: json with the categories (a list, or a dict with ``categories``) for
            annotations that do not tell things from stuff, such as
            ``panoptic_coco_categories.json`` of panopticapi. None takes those of ``ann_file``.
        **kwargs: see ``mmengine.dataset.BaseDataset``.

    Raises:
        FileNotFoundError: a json or a folder is missing.
        ValueError: json of another form, a category or image that is not listed, or classes in
            ``metainfo``, which come from the json.
    """

    METAINFO: dict[str, Any] = {}

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        data_prefix: Mapping[str, str] | None = None,
        categories_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        if "classes" in (kwargs.get("metainfo") or {}):
            raise ValueError(
                "PanopticRegionsDataset takes its classes from the json; to name them otherwise, "
                "give the model a vocabulary"
            )
        if categories_file and not os.path.isabs(categories_file):
            categories_file = os.path.join(data_root, categories_file)
        self.categories_file = categories_file
        prefix = {"img_path": "", "seg_map_path": "", **(data_prefix or {})}
        super().__init__(ann_file=ann_file, data_root=data_root, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the json into one dict an image, in the order of its annotations."""
        for name in ("img_path", "seg_map_path"):
            folder = self.data_prefix[name]
            if not os.path.isdir(folder):
                raise FileNotFoundError(
                    f"PanopticRegionsDataset: no folder {folder!r}; set data_root, or "
                    f"data_prefix.{name} below it"
                )
        content = read_json(self.ann_file, "set ann_file")
        check_parts(content, self.ann_file, ("images", "annotations"))
        if not content["annotations"]:
            raise ValueError(f"{self.ann_file} has no annotations; set ann_file to one that has")
        if self.categories_file:
            source = self.categories_file
            found = read_json(source, "set categories_file")
        else:
            source, found = self.ann_file, content
        categories = sorted_categories(found, source)
        isthing = tuple(bool(category["isthing"]) for category in categories)
        classes = tuple(str(category["name"]) for category in categories)
        self._metainfo.update(
            classes=classes,
            isthing=isthing,
            thing_classes=tuple(c for c, thing in zip(classes, isthing) if thing),
            stuff_classes=tuple(c for c, thing in zip(classes, isthing) if not thing),
        )
        labels = {category["id"]: label for label, category in enumerate(categories)}
        images = {image["id"]: image for image in content["images"]}
        try:
            items = [self._item(note, images, labels) for note in content["annotations"]]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{self.ann_file}: an image, annotation or segment has no {error}; it must be "
                "COCO's json of panoptic segments"
            ) from error
        check_samples(self, items)
        return items

    def _item(
        self, note: Mapping[str, Any], images: Mapping[Any, Any], labels: Mapping[Any, int]
    ) -> dict[str, Any]:
        """What is known of one image before its files are opened."""
        where = f"annotation of {note.get('file_name')!r} in {self.ann_file}"
        if note["image_id"] not in images:
            raise ValueError(f"{where}: image_id {note['image_id']!r} is not among the images")
        image = images[note["image_id"]]
        segments = []
        for segment in note["segments_info"]:
            category = segment["category_id"]
            if category not in labels:
                raise ValueError(
                    f"{where}: category_id {category!r} is none of the {len(labels)} categories; "
                    "name the right ones with categories_file"
                )
            if not is_box(segment["bbox"]):
                raise ValueError(
                    f"{where}: segment {segment['id']} has the bbox {segment['bbox']!r}, which is "
                    "not x, y, width, height as four finite numbers; repair or replace the file"
                )
            label = labels[category]
            segments.append(
                {
                    "id": segment["id"],
                    "label": label,
                    "isthing": self._metainfo["isthing"][label],
                    "bbox": [float(value) for value in segment["bbox"]],
                }
            )
        return {
            "img_path": os.path.join(self.data_prefix["img_path"], image["file_name"]),
            "seg_map_path": os.path.join(self.data_prefix["seg_map_path"], note["file_name"]),
            "img_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "segments": segments,
        }


def sorted_categories(content: Any, source: str) -> Sequence[Mapping[str, Any]]:
    """The categories of a json, by id.

    Args:
        content: a list of categories, or a dict with the list under ``categories``.
        source: file that it came from, for the messages.

    Raises:
        ValueError: no categories, or one without ``id``, ``name`` or ``isthing``.
    """
    categories = content.get("categories") if isinstance(content, Mapping) else content
    if not categories:
        raise ValueError(f"{source} lists no categories; name a file that does: categories_file")
    check_parts({"categories": categories}, source, ("categories",))
    for category in categories:
        missing = {"id", "name", "isthing"} - set(category)
        if missing:
            raise ValueError(
                f"{source}: category {category} has no {' and no '.join(sorted(missing))}; name a "
                "file with panoptic categories: categories_file='panoptic_coco_categories.json'"
            )
    return sorted(categories, key=lambda category: category["id"])
