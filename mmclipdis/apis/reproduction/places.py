"""Where data and weights lie, and what is said of data that does not lie there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

#: What paths of the configs begin with.
DATA, WEIGHTS = Path("data"), Path("checkpoints")
GUIDE = "docs/datasets.md"


@dataclass(frozen=True)
class Source:
    """How a folder of data is got.

    Attributes:
        how: a command of the guide, or what to unpack where.
        section: of ``docs/datasets.md``.
    """

    how: str
    section: str


#: Folders below data/; the longest that a path begins with counts. A test holds that the guide says
#: the same.
SOURCES = {
    "ade20k_full": Source("python tools/dataset_converters/ade20k_full.py RELEASE", "a-847"),
    "ade/ADEChallengeData2016": Source("unpack ADEChallengeData2016.zip in data/ade", "a-150"),
    "VOCdevkit/VOC2012": Source(
        "unpack VOC 2012 trainval in data", "pas-20-and-pas-20b-and-voc-21"
    ),
    "VOCdevkit/VOC2010": Source(
        "python tools/dataset_converters/pascal_context.py data/VOCdevkit/VOC2010",
        "pc-59-and-pc-459-and-pc-60",
    ),
    "VOCdevkit/VOC2007": Source("unpack VOC 2007 trainval and test in data", "others"),
    "coco": Source(
        "unpack COCO 2017 in data/coco; of OV-COCO: python tools/dataset_converters/ov_coco.py "
        "data/coco/annotations",
        "coco-2017-and-what-is-made-of-it",
    ),
    "coco_stuff164k": Source(
        "unpack stuffthingmaps_trainval2017.zip, run mmseg's coco_stuff164k.py, and of COCO-Object "
        "python tools/dataset_converters/coco_object.py data/coco_stuff164k",
        "coco-2017-and-what-is-made-of-it",
    ),
    "lvis_v1": Source(
        "python tools/dataset_converters/ov_lvis.py data/lvis_v1/annotations/lvis_v1_train.json",
        "coco-2017-and-what-is-made-of-it",
    ),
    "cityscapes": Source("unpack the two archives, run mmseg's cityscapes.py", "others"),
    "coco14": Source("unpack COCO 2014 in data/coco14", "others"),
    "Objects365": Source("unpack Objects365 v1 val in data/Objects365/Obj365_v1", "others"),
}


@dataclass(frozen=True)
class Places:
    """Where things lie.

    Attributes:
        data: what ``data/`` of the configs is.
        weights: what ``checkpoints/`` is.
        work: where configs, logs and results of the cells go.
    """

    data: Path = DATA
    weights: Path = WEIGHTS
    work: Path = Path("work_dirs/reproduction")

    def moved(self, text: str) -> str:
        """A path of a config at its place here; any other text as it is."""
        for usual, here in ((DATA, self.data), (WEIGHTS, self.weights)):
            if text != str(usual) and not text.startswith(f"{usual}/"):
                continue
            rest = text[len(str(usual)) :]
            return f"{here}{rest}"
        return text

    def put(self, node: Any) -> Any:
        """Settings with all their paths so."""
        if isinstance(node, str):
            return self.moved(node)
        if isinstance(node, dict):
            return {key: self.put(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return type(node)(self.put(value) for value in node)
        return node

    def source(self, path: str) -> str:
        """The line that gets the data of a path, as far as it is known."""
        try:
            below = PurePath(path).relative_to(self.data)
        except ValueError:
            return f"set data_root; {GUIDE} has the layouts"
        known = [name for name in SOURCES if below.is_relative_to(name)]
        if not known:
            return f"see {GUIDE}"
        source = SOURCES[max(known, key=len)]
        return f"{source.how} ({GUIDE}#{source.section})"
