"""What a tagger finds: a score for each word about the whole photo."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mmclipdis.apis.results.base import Result, kind_of, some_of
from mmclipdis.visualization.bars import draw_bars

#: Words that a picture shows.
SHOWN = 12


@dataclass(frozen=True, repr=False, eq=False)
class Tags(Result):
    """What one photo shows.

    Attributes:
        scores: float32 (K,), in [0, 1], one a word. Those of CLIP add up to 1 over the words (and
            the words of the background); those of DCLIP are independent of each other.
        names: words that were looked for, length K.
        photo: RGB uint8 (H, W, 3).
        path: file of the photo, if it came from one.
        local: float32 (K,): cosine of the word with the place that is most like it, in [-1, 1],
            where it was asked for; else None.
        frame: number of the photo in its video; None for a photo.
        threshold: least score of a word that counts as found.
    """

    scores: np.ndarray
    names: tuple[str, ...]
    photo: np.ndarray
    path: Path | None = None
    local: np.ndarray | None = None
    frame: int | None = None
    threshold: float = 0.0
    look: Any = field(default=None)

    KINDS: ClassVar[tuple[str, ...]] = ("bars",)
    COLUMNS: ClassVar[tuple[str, ...]] = ("name", "score")

    def found(self) -> dict[str, float]:
        """Words whose score is at least :attr:`threshold` and their scores, the surest first."""
        return {self.names[i]: float(self.scores[i]) for i in self._order()}

    def top(self, count: int = 5) -> dict[str, float]:
        """The ``count`` surest words and their scores, whatever the threshold."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return {self.names[i]: float(self.scores[i]) for i in order}

    def draw(self, kind: str | None = None, count: int = SHOWN) -> Image.Image:
        """The photo beside bars of the ``count`` surest words.

        Raises:
            ValueError: another kind.
        """
        kind_of(self, kind)
        return draw_bars(self.photo, list(self.top(count).items()))

    def columns(self) -> list[str]:
        """As of the base, and ``local`` if it is known."""
        return [*super().columns(), *([] if self.local is None else ["local"])]

    def to_rows(self) -> list[dict[str, Any]]:
        """A row a word that was found: ``photo``, ``name``, ``score``, and ``local`` if known."""
        rows = []
        for i in self._order():
            local = {} if self.local is None else {"local": float(self.local[i])}
            rows.append(self._row(name=self.names[i], score=float(self.scores[i]), **local))
        return rows

    def annotations(self, image_id: int, first_id: int, masks: str) -> list[dict[str, Any]]:
        """One annotation for each word that was found, about the whole photo, with its ``score``.

        COCO's json has no tags: the box is that of the photo.
        """
        height, width = self.size
        return [
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": int(i) + 1,
                "bbox": [0.0, 0.0, float(width), float(height)],
                "area": height * width,
                "iscrowd": 0,
                "score": float(self.scores[i]),
            }
            for number, i in enumerate(self._order())
        ]

    def _order(self) -> np.ndarray:
        """Places of the words that were found, the surest first."""
        order = np.argsort(-self.scores, kind="stable")
        return order[self.scores[order] >= self.threshold]

    def _summary(self) -> str:
        return some_of(list(self.found().items()))
