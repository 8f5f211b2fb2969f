"""What a segmentor finds: a word for each pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mmclipdis.apis.results.base import Result, kind_of, some_of, supervision
from mmclipdis.apis.results.masks import box_of, segmentation_of
from mmclipdis.utils.labels import no_class
from mmclipdis.visualization import NO_COLOUR, blend, class_palette, compose_sheet


@dataclass(frozen=True, repr=False, eq=False)
class Segmentation(Result):
    """What was found in one photo.

    Attributes:
        labels: class index of each pixel, int64 (H, W), at the size of the photo; :attr:`nothing`
            where no word is probable enough, or a word of the background is.
        names: class names; ``names[labels[y, x]]`` is what is at row y, column x.
        photo: RGB uint8 (H, W, 3).
        path: file of the photo, if it came from one.
        frame: number of the photo in its video; None for a photo.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    photo: np.ndarray
    path: Path | None = None
    frame: int | None = None
    look: Any = field(default=None)

    KINDS: ClassVar[tuple[str, ...]] = ("sheet", "overlay", "labels")
    COLUMNS: ClassVar[tuple[str, ...]] = ("name", "share", "pixels")

    @property
    def nothing(self) -> int:
        """The label of pixels that are none of the names: 255, or 65535 with more names."""
        return no_class(len(self.names))

    def shares(self) -> dict[str, float]:
        """Share of the pixels, in [0, 1], of each class that was found, largest first.

        Pixels that are none of the names are called ``"none"``.
        """
        counts = np.bincount(self._known().ravel(), minlength=len(self.names) + 1)
        shares = counts / self.labels.size
        order = np.argsort(-shares, kind="stable")
        return {(*self.names, "none")[i]: float(shares[i]) for i in order if shares[i] > 0}

    def mask(self, word: str) -> np.ndarray:
        """Where a word is, bool (H, W).

        Raises:
            ValueError: it is none of the names.
        """
        if word not in self.names:
            raise ValueError(f"{word!r} is none of the words {list(self.names)[:8]}")
        return np.asarray(self.labels == self.names.index(word))

    def draw(self, kind: str | None = None, opacity: float = 0.6) -> Image.Image:
        """A picture of the labels.

        Args:
            kind: ``'sheet'``: photo, overlay and label map side by side, with a legend.
                ``'overlay'``: the colours over the photo. ``'labels'``: the label map itself, whose
                values are the labels, 8 bits, or 16 with more than 255 names.
            opacity: Of the colours.

        Pixels that are none of the names show the photo, and are light grey among the classes.

        Raises:
            ValueError: another kind, or an opacity outside [0, 1].
        """
        kind = kind_of(self, kind)
        if kind == "labels":
            bits = np.uint8 if self.nothing == 255 else np.uint16
            return Image.fromarray(self.labels.astype(bits))
        palette = [*class_palette(len(self.names)), NO_COLOUR]
        nothing, labels = self.labels == self.nothing, self._known()
        overlay = blend(self.photo, labels, palette, opacity, ignore_index=-1)
        overlay[nothing] = self.photo[nothing]
        if kind == "overlay":
            return Image.fromarray(overlay)
        row, titles = [self.photo, overlay, labels], ["photo", "overlay", "classes"]
        names = (*self.names, "none")
        return compose_sheet([row], titles, names, palette, cell_height=360, ignore_index=-1)

    def save(
        self, path: str | Path, opacity: float = 0.6, *, kind: str | None = None, **options: Any
    ) -> Path:
        """Write photo, overlay and label map side by side, with a legend; return the path.

        ``kind='overlay'`` or ``'labels'`` writes that alone; see :meth:`draw`. The rest is as in
        :meth:`Result.save`.
        """
        return super().save(path, opacity, kind=kind, **options)

    def to_rows(self) -> list[dict[str, Any]]:
        """A row for each word that was found: ``photo``, ``name``, ``share``, ``pixels``."""
        return [
            self._row(name=name, share=share, pixels=round(share * self.labels.size))
            for name, share in self.shares().items()
        ]

    def annotations(self, image_id: int, first_id: int, masks: str) -> list[dict[str, Any]]:
        """One annotation for each word that was found, whose mask is all of its pixels."""
        return [
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": box_of(mask),
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": segmentation_of(mask, masks),
            }
            for number, (label, mask) in enumerate(self._masks())
        ]

    def to_supervision(self) -> Any:
        """The mask of each word that was found as ``supervision.Detections``.

        Raises:
            ImportError: supervision is not installed.
        """
        package = supervision()
        found = self._masks()
        if not found:
            return package.Detections.empty()
        x, y, width, height = np.array([box_of(mask) for _, mask in found]).T
        return package.Detections(
            xyxy=np.stack([x, y, x + width, y + height], axis=1).astype(np.float32),
            mask=np.stack([mask for _, mask in found]),
            class_id=np.array([label for label, _ in found]),
            data={"class_name": np.array([self.names[label] for label, _ in found])},
        )

    def _known(self) -> np.ndarray:
        """Labels with the number of the names in place of :attr:`nothing`."""
        return np.where(self.labels == self.nothing, len(self.names), self.labels)

    def _masks(self) -> list[tuple[int, np.ndarray]]:
        """Label and mask, bool (H, W), of each word that was found, in order of the words."""
        found = [int(label) for label in np.unique(self._known()) if label < len(self.names)]
        return [(label, self.labels == label) for label in found]

    def _summary(self) -> str:
        return some_of(list(self.shares().items()))
