"""OV-LVIS in mmdet: classes, base (frequent, common) and novel (rare) ones, from the json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.datasets import LVISV1Dataset
from mmdet.registry import DATASETS

from mmclipdis.datasets.detection.coco import OVCocoDataset

_HOST = "http://images.cocodataset.org/"


@DATASETS.register_module()
class OVLVISDataset(OVCocoDataset, LVISV1Dataset):
    """LVIS boxes and masks: the 866 frequent and common classes in training, 337 rare in test.

    ``metainfo`` comes from the json: ``classes`` are its categories by id (label = id - 1 in
    LVIS v1), ``novel_classes`` those whose ``frequency`` is ``r``, ``base_classes`` the others.
    ``LVISV1Dataset`` has names of its own, one of which (number 654) is spelt otherwise than in
    the json and in all class embeddings.

    Photos are addressed by ``coco_url``: ``train2017/000000391895.jpg`` below ``data_prefix.img``.
    The package ``lvis`` is needed by ``LVISMetric`` only.

    Args:
        **kwargs: Of :class:`OVCocoDataset`, without ``metainfo.classes``. Annotations of rare
            classes are left out in training unless ``novel_in_training``.

    Raises:
        FileNotFoundError: no such annotation file.
        ValueError: it is broken, or a category has no ``frequency``; ``metainfo`` names classes.
    """

    METAINFO: dict[str, Any] = {
        "classes": (),
        "base_classes": (),
        "novel_classes": (),
    }

    @classmethod
    def _load_metainfo(cls, metainfo: Any = None) -> dict[str, Any]:
        named = set(metainfo or ()) & set(cls.METAINFO)
        if named:
            raise ValueError(
                f"{cls.__name__} takes {' and '.join(sorted(named))} from the json; to name them "
                "otherwise, give the model a vocabulary"
            )
        return super()._load_metainfo(metainfo)

    def _number(self, categories: Sequence[Mapping[str, Any]]) -> dict[int, int]:
        """Label of each category id, and the classes of ``metainfo``."""
        ordered = sorted(categories, key=lambda category: category["id"])
        for category in ordered:
            if category.get("frequency") not in ("f", "c", "r"):
                raise ValueError(
                    f"{type(self).__name__}: category {category['name']!r} in {self.ann_file!r} "
                    "has no frequency f, c or r; give a file of LVIS, not one of COCO"
                )
        rare = [category["frequency"] == "r" for category in ordered]
        classes = tuple(category["name"] for category in ordered)
        self._metainfo.update(
            classes=classes,
            base_classes=tuple(name for name, novel in zip(classes, rare) if not novel),
            novel_classes=tuple(name for name, novel in zip(classes, rare) if novel),
        )
        return super()._number(categories)

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> Any:
        """As ``CocoDataset``'s; LVIS v1 names its photos by URL only."""
        image = raw_data_info["raw_img_info"]
        if "coco_url" in image:
            image["file_name"] = image["coco_url"].replace(_HOST, "")
        return super().parse_data_info(raw_data_info)
