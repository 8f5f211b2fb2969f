"""ShapeScenes as a segmentation data set."""

from __future__ import annotations

from typing import Any

from mmseg.registry import DATASETS

from mmclipdis.datasets.files import FilesThere
from mmclipdis.shapes.coco import LABEL_SUFFIX
from mmclipdis.shapes.world import CLASSES, GROUPS, PALETTE


@DATASETS.register_module()  # type: ignore[misc, unused-ignore]  # mmengine is untyped
class ShapeScenesDataset(FilesThere):  # type: ignore[misc, unused-ignore]
    """Stuff-thing label maps of the generated world (``tools/dataset_converters/shapes.py``).

    ``metainfo["groups"]`` names the classes of each group: ``base``, ``novel``, ``things`` and
    ``stuff``. With ``metainfo=dict(classes=...)``, mmseg's way of training on some classes, the
    labels of the others become 255 and the groups keep describing the whole world.

    Args:
        img_suffix, seg_map_suffix: As the generator writes them.
        **kwargs: See ``mmseg.datasets.BaseSegDataset``.
    """

    METAINFO = {"classes": CLASSES, "palette": [list(c) for c in PALETTE], "groups": GROUPS}

    def __init__(
        self, img_suffix: str = ".png", seg_map_suffix: str = LABEL_SUFFIX, **kwargs: Any
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
