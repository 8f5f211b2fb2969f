"""What a detector finds: boxes, each with a word and a score."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mmclipdis.apis.results.base import Result, kind_of, some_of, supervision
from mmclipdis.apis.results.masks import segmentation_of
from mmclipdis.visualization.boxes import draw_boxes, enlarged

#: Least score of a box in a picture where nobody asked for one, as in mmdet's inferencer.
DRAWN = 0.3


@dataclass(frozen=True, repr=False, eq=False)
class Detections(Result):
    """What was found in one photo, the surest first.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the photo, float32 (n, 4).
        scores: float32 (n,), in [0, 1].
        labels: int64 (n,); ``names[labels[i]]`` is what box i is around.
        names: words that were looked for.
        photo: RGB uint8 (H, W, 3).
        path: file of the photo, if it came from one.
        masks: bool (n, H, W) of detectors that have them; else None.
        frame: number of the photo in its video; None for a photo.
        threshold: least score that was asked for; None if nobody did.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    photo: np.ndarray
    path: Path | None = None
    masks: np.ndarray | None = None
    frame: int | None = None
    threshold: float | None = None
    look: Any = field(default=None)

    KINDS: ClassVar[tuple[str, ...]] = ("boxes",)
    COLUMNS: ClassVar[tuple[str, ...]] = ("name", "score", "x1", "y1", "x2", "y2")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The word of each box, length n."""
        return tuple(self.names[label] for label in self.labels)

    def above(self, threshold: float) -> Detections:
        """The detections whose score is at least ``threshold``."""
        kept = self.scores >= threshold
        masks = None if self.masks is None else self.masks[kept]
        boxes, scores, labels = self.boxes[kept], self.scores[kept], self.labels[kept]
        return replace(self, boxes=boxes, scores=scores, labels=labels, masks=masks)

    def counts(self) -> dict[str, int]:
        """How many boxes each word has that was found, most first."""
        counts = np.bincount(self.labels, minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        return {self.names[i]: int(counts[i]) for i in order if counts[i] > 0}

    def draw(
        self, kind: str | None = None, opacity: float = 0.4, threshold: float | None = None
    ) -> Image.Image:
        """The photo with the boxes, each with its word and score; a small photo is enlarged.

        Args:
            kind: ``'boxes'``.
            opacity: Of masks, where there are any.
            threshold: Least score of a box that is drawn; None for :attr:`threshold` or, without
                one, :data:`DRAWN`.

        Raises:
            ValueError: another kind.
        """
        kind_of(self, kind)
        usual = DRAWN if self.threshold is None else self.threshold
        shown = self.above(usual if threshold is None else threshold)
        texts = [f"{n} {s:.2f}" for n, s in zip(shown.label_names, shown.scores, strict=True)]
        photo, boxes, masks = enlarged(self.photo, shown.boxes, shown.masks)
        count = len(self.names)
        return Image.fromarray(draw_boxes(photo, boxes, shown.labels, texts, count, masks, opacity))

    def to_rows(self) -> list[dict[str, Any]]:
        """A row a box: ``photo``, ``name``, ``score``, ``x1``, ``y1``, ``x2``, ``y2``."""
        return [
            self._row(name=name, score=score, x1=x1, y1=y1, x2=x2, y2=y2)
            for name, score, (x1, y1, x2, y2) in zip(
                self.label_names, self.scores.tolist(), self.boxes.tolist(), strict=True
            )
        ]

    def annotations(self, image_id: int, first_id: int, masks: str) -> list[dict[str, Any]]:
        """One annotation a box, with its ``score``, and its mask where there is one."""
        notes = []
        for number, (x1, y1, x2, y2) in enumerate(self.boxes.tolist()):
            mask = None if self.masks is None else self.masks[number]
            width, height = x2 - x1, y2 - y1
            notes.append(
                {
                    "id": first_id + number,
                    "image_id": image_id,
                    "category_id": int(self.labels[number]) + 1,
                    "bbox": [x1, y1, width, height],
                    "area": width * height if mask is None else int(mask.sum()),
                    "iscrowd": 0,
                    "score": float(self.scores[number]),
                    **({} if mask is None else {"segmentation": segmentation_of(mask, masks)}),
                }
            )
        return notes

    def to_supervision(self) -> Any:
        """The boxes as ``supervision.Detections``, with ``data['class_name']``.

        Raises:
            ImportError: supervision is not installed.
        """
        package = supervision()
        return package.Detections(
            xyxy=self.boxes.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=self.labels.astype(int),
            mask=self.masks,
            data={"class_name": np.array(self.label_names, dtype=str)},
        )

    def _summary(self) -> str:
        found = list(zip(self.label_names, self.scores.tolist(), strict=True))
        boxes = "1 box" if len(self) == 1 else f"{len(self)} boxes"
        return f"{boxes}: {some_of(found)}" if found else "no boxes"
