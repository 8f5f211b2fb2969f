"""Where a photo looks like a word: what readers of papers on dense CLIP want to see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmclipdis.apis.results.base import png_bytes, title_of
from mmclipdis.utils.whole_files import write_picture
from mmclipdis.visualization.heat import draw_heat


@dataclass(frozen=True, eq=False)
class HeatMap:
    """How much each pixel of a photo is like a word.

    Attributes:
        values: float32 (H, W), at the size of the photo.
        word: what was looked for.
        kind: what the values are: ``'cosine'``, in [-1, 1], ``'probability'``, in [0, 1], or
            ``'score'``, cosines after feature surgery.
        photo: RGB uint8 (H, W, 3).
        path: file of the photo, if it came from one.
        frame: number of the photo in its video; None for a photo.
    """

    values: np.ndarray
    word: str
    kind: str
    photo: np.ndarray
    path: Path | None = None
    frame: int | None = None

    def peak(self) -> tuple[int, int]:
        """(x, y) of the pixel with the largest value."""
        row, column = np.unravel_index(int(self.values.argmax()), self.values.shape)
        return int(column), int(row)

    def draw(self, opacity: float = 0.6, limits: tuple[float, float] | None = None) -> Image.Image:
        """The values in colours over the photo.

        Args:
            opacity: Of the colours, in [0, 1].
            limits: The values that are blue and red. None for the smallest and the largest of this
                map, which are red somewhere even where the word is nowhere; the same limits make
                maps comparable.

        Raises:
            ValueError: an opacity outside [0, 1], or limits that do not rise.
        """
        return Image.fromarray(draw_heat(self.photo, self.values, opacity, limits))

    def save(
        self,
        path: str | Path,
        opacity: float = 0.6,
        limits: tuple[float, float] | None = None,
    ) -> Path:
        """Write the picture of :meth:`draw` to a file, or as ``PHOTO_WORD.png`` to a folder.

        Raises:
            OSError: it cannot be written.
        """
        target = Path(path)
        if target.is_dir() or not target.suffix:
            word = "".join(mark if mark.isalnum() else "_" for mark in self.word)
            target = target / f"{title_of(self.path, self.frame)}_{word}.png"
        write_picture(target, self.draw(opacity, limits))
        return target

    def _repr_png_(self) -> bytes:
        """The picture that notebooks show."""
        return png_bytes(self.draw())

    def __repr__(self) -> str:
        low, high = float(self.values.min()), float(self.values.max())
        height, width = self.values.shape
        x, y = self.peak()
        return (
            f"HeatMap({self.word!r}, {width} x {height}: {self.kind} {low:.2f} to {high:.2f}, "
            f"most at x={x}, y={y})"
        )
