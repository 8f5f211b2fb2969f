"""mmseg's visualizer for vocabularies with synonyms and with several names of the background."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import PixelData
from mmseg.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer

from mmclipdis.visualization.sheet import class_palette


@VISUALIZERS.register_module()
class VocabularyVisualizer(SegLocalVisualizer):
    """``SegLocalVisualizer`` that paints what the metric counts.

    A class is written as its first name ("door", not "door, doors, exit"), in predictions as the
    sample says that it was asked for (``label_names``), in labels as the data set has it. Where
    the data set's metainfo has ``background_from=k``, classes from k on are one background, which
    stays unpainted: labels call it k, and the class of that number is one of its several names.
    Arguments are those of ``SegLocalVisualizer``; labels may have any number of bits. Photos of one
    file name are stored under names with their folders.
    """

    @classmethod
    def get_instance(cls, name: str | None = None, **kwargs: Any) -> VocabularyVisualizer:
        """As mmengine's; without a name it is a new one, which no other run has taken."""
        own = name or f"visualizer_{uuid.uuid4().hex}"
        made: VocabularyVisualizer = super().get_instance(own, **kwargs)
        return made

    def add_datasample(
        self, name: str, image: np.ndarray, data_sample: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """As mmseg's, whose hook calls all photos of one file name by the same ``name``."""
        self.__dict__["_drawn"] = data_sample
        photo = Path(getattr(data_sample, "img_path", None) or name)
        step = kwargs.get("step", 0)
        known: dict[Any, Path] = self.__dict__.setdefault("_photo_of", {})
        own = name
        for folders in range(1, len(photo.parts)):
            if known.setdefault((own, step), photo) == photo:
                break
            own = name.replace(photo.name, "_".join(photo.parts[-1 - folders :]))
        super().add_datasample(own, image, data_sample, *args, **kwargs)

    def _draw_sem_seg(
        self,
        image: np.ndarray,
        sem_seg: PixelData,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        with_labels: bool | None = True,
    ) -> np.ndarray:
        """Image RGB uint8 (H, W, 3) with the labels (1, H, W) painted over it."""
        drawn: Any = self.__dict__.get("_drawn")
        asked = drawn is not None and sem_seg is drawn.get("pred_sem_seg")
        own = drawn.get("label_names") if asked else None
        names = [name.split(", ")[0] for name in own or classes]
        palette = [*palette, *class_palette(len(names))[len(palette) :]]
        first = (self.dataset_meta or {}).get("background_from")
        if first is not None and len(names) == len(classes):
            labels = sem_seg.data
            background = (labels >= first) & (labels < len(names))
            sem_seg = PixelData(data=labels.masked_fill(background, first))
            names = [*names[:first], "background"]
            palette = [*palette[:first], [0, 0, 0]]
        image = np.ascontiguousarray(image)  # browse_dataset.py hands over a view
        painted: np.ndarray = super()._draw_sem_seg(image, sem_seg, names, palette, with_labels)
        return painted
