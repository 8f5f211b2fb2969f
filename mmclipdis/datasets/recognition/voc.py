"""Which classes a photo of PASCAL VOC shows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from mmengine.registry import DATASETS
from numpy.typing import NDArray

from mmclipdis.datasets.recognition.coco import MultiLabelDataset, select_classes
from mmclipdis.utils.listed_files import read_split
from mmclipdis.utils.paths import check_samples

DIFFICULT = {"negative": 0, "ignore": -1, "positive": 1}


@DATASETS.register_module()
class VOCMultiLabelDataset(MultiLabelDataset):
    """Labels from VOC's XML files: a class is there if one of its objects is annotated.

    ::

        data_root/ImageSets/Main/trainval.txt, JPEGImages/000005.jpg, Annotations/000005.xml

    Classes have VOC's own names; ``metainfo`` selects among them. A subclass with another
    ``METAINFO`` reads other data in this layout.

    Args:
        data_root: ``VOCdevkit/VOC2007``.
        split: name of a list in ``ImageSets/Main``; VOC2007 has 5,011 photos in ``trainval`` and
            4,952 in ``test``.
        data_prefix: ``dict(img_path=..., ann_path=...)`` below ``data_root``.
        difficult: label of a class of which a photo shows difficult objects only. ``'negative'``:
            absent, the protocol of DualCoOp and DCLIP; ``'ignore'``: unknown; ``'positive'``:
            present.
        filter_empty: leave out photos without a present class; the protocol keeps them.
        **kwargs: see :class:`~mmclipdis.datasets.recognition.coco.MultiLabelDataset`.

    Raises:
        FileNotFoundError: a folder, the list or an XML file is missing.
        ValueError: an XML file cannot be read or names an object of no known class, or
            ``difficult`` is none of the three.
    """

    METAINFO = dict(
        classes=(
            "aeroplane",
            "bicycle",
            "bird",
            "boat",
            "bottle",
            "bus",
            "car",
            "cat",
            "chair",
            "cow",
            "diningtable",
            "dog",
            "horse",
            "motorbike",
            "person",
            "pottedplant",
            "sheep",
            "sofa",
            "train",
            "tvmonitor",
        )
    )

    def __init__(
        self,
        data_root: str,
        split: str,
        data_prefix: Mapping[str, str] | None = None,
        difficult: str = "negative",
        filter_empty: bool = False,
        **kwargs: Any,
    ) -> None:
        if difficult not in DIFFICULT:
            raise ValueError(f"difficult must be one of {tuple(DIFFICULT)}, got {difficult!r}")
        self.difficult = difficult
        super().__init__(
            ann_file=f"ImageSets/Main/{split}.txt",
            data_root=data_root,
            data_prefix={
                "img_path": "JPEGImages",
                "ann_path": "Annotations",
                **(data_prefix or {}),
            },
            filter_empty=filter_empty,
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the list and its XML files into ``img_path``, ``img_id`` and ``gt_score``."""
        photos, notes = self.check_folder("img_path"), self.check_folder("ann_path")
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(
                f"{type(self).__name__}: no list {self.ann_file!r}; set split or data_root"
            )
        known = self.METAINFO["classes"]
        classes = select_classes(known, self.metainfo["classes"], type(self).__name__)
        self._metainfo["classes"] = classes
        # None: known, but not selected.
        labels = dict.fromkeys(known) | {name: label for label, name in enumerate(classes)}
        items = []
        for number, name in read_split(self.ann_file):
            if len(name.split()) > 1:
                raise ValueError(
                    f"{self.ann_file}, line {number}: {name!r} is no name of a photo; the "
                    "lists of one class (dog_train.txt) name all photos: set split='train'"
                )
            photo = {"img_path": os.path.join(photos, f"{name}.jpg")}
            check_samples(self, [photo])  # the annotation lies under the same name
            items.append(
                {
                    **photo,
                    "img_id": name,
                    "gt_score": self._score(os.path.join(notes, f"{name}.xml"), labels),
                }
            )
        return items

    def _score(self, path: str, labels: Mapping[str, int | None]) -> NDArray[np.int8]:
        """Labels (N,) of one photo."""
        score = np.zeros(len(self._metainfo["classes"]), np.int8)
        found = [(labels[name], hard) for name, hard in read_objects(path, set(labels))]
        selected = [(label, hard) for label, hard in found if label is not None]
        score[[label for label, hard in selected if hard]] = DIFFICULT[self.difficult]
        score[[label for label, hard in selected if not hard]] = 1
        return score


def read_objects(path: str, known: set[str]) -> list[tuple[str, bool]]:
    """Class of every object of a VOC XML file, and whether it is marked difficult.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or an object is of none of the ``known`` classes.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no annotation {path!r}; set data_prefix.ann_path") from error
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no XML ({error}); extract it again") from error
    objects = []
    for element in root.findall("object"):  # a person's parts are deeper
        name = (element.findtext("name") or "").strip()
        if name not in known:
            raise ValueError(
                f"{path}: an object is called {name!r}, which is none of the {len(known)} classes "
                f"{', '.join(sorted(known))}"
            )
        objects.append((name, (element.findtext("difficult") or "0").strip() == "1"))
    return objects
