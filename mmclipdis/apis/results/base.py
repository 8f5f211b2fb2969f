"""What the results of all three tasks share: files, tables, COCO's json, notebooks."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mmclipdis.utils.columns import FRAME, PHOTO, columns_of
from mmclipdis.utils.whole_files import write_picture


class Result(ABC):
    """What was found in one photo.

    Attributes:
        names: words that were looked for.
        photo: RGB uint8 (H, W, 3).
        path: file of the photo, if it came from one.
        frame: number of the photo in its video, from 0; None for a photo.
    """

    names: tuple[str, ...]
    photo: np.ndarray
    path: Path | None
    frame: int | None
    #: Makes a heat map of one word; see :meth:`heatmap`.
    look: Any

    #: Pictures that :meth:`save` draws, first the usual one.
    KINDS: ClassVar[tuple[str, ...]] = ("sheet",)
    #: What each row of :meth:`to_rows` says of a thing.
    COLUMNS: ClassVar[tuple[str, ...]] = ()

    @property
    def title(self) -> str:
        """Name of the photo without folder and ending, with the number of a frame."""
        return title_of(self.path, self.frame)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photo in pixels."""
        return int(self.photo.shape[0]), int(self.photo.shape[1])

    @abstractmethod
    def draw(self, kind: str | None = None, *args: Any, **options: Any) -> Image.Image:
        """The picture that :meth:`save` writes."""

    @abstractmethod
    def to_rows(self) -> list[dict[str, Any]]:
        """One dict a thing that was found, with plain values: the rows of a table or CSV file."""

    @abstractmethod
    def annotations(self, image_id: int, first_id: int, masks: str) -> list[dict[str, Any]]:
        """COCO's annotations of what was found."""

    @abstractmethod
    def _summary(self) -> str:
        """What a line about the result says of it."""

    def save(self, path: str | Path, *args: Any, **options: Any) -> Path:
        """Write a picture of the result and return its path.

        Args:
            path: A file, whose ending says its format, or a folder: then the file is called as
                the photo, ``.png``.
            args, options: Of :meth:`draw`: ``kind`` of :attr:`KINDS`, and what it takes beside.

        Raises:
            OSError: it cannot be written.
            ValueError: an ending or a kind that does not exist; or a folder where the photo itself
                is called so.
        """
        target = Path(path)
        if target.is_dir() or not target.suffix:
            target = target / f"{self.title}.png"
            if self.path and self.path.exists() and target.resolve() == self.path.resolve():
                raise ValueError(
                    f"{target} is the photo itself, which a picture of the result would replace; "
                    "give another folder, or a file"
                )
        write_picture(target, self.draw(options.pop("kind", None), *args, **options))
        return target

    def to_coco(
        self, image_id: int = 1, annotation_id: int = 1, masks: str = "rle"
    ) -> dict[str, Any]:
        """The result as COCO's json has it: ``images``, ``annotations``, ``categories``.

        Category i + 1 is ``names[i]``. For several photos see :func:`to_coco`.

        Args:
            image_id: Of the photo.
            annotation_id: Of the first annotation; others count on.
            masks: ``'rle'`` for exact masks in runs, or ``'polygons'``, which have no holes.

        Raises:
            ValueError: another kind of masks.
        """
        if masks not in ("rle", "polygons"):
            raise ValueError(f"masks must be 'rle' or 'polygons', got {masks!r}")
        height, width = self.size
        name = self.path.name if self.path and self.frame is None else f"{self.title}.png"
        return {
            "images": [{"id": image_id, "file_name": name, "height": height, "width": width}],
            "annotations": self.annotations(image_id, annotation_id, masks),
            "categories": [{"id": i, "name": name} for i, name in enumerate(self.names, start=1)],
        }

    def to_dataframe(self) -> Any:
        """The rows of :meth:`to_rows` as a pandas ``DataFrame``.

        Raises:
            ImportError: pandas is not installed.
        """
        return to_dataframe([self])

    def to_supervision(self) -> Any:
        """What was found as ``supervision.Detections``.

        Raises:
            ImportError: supervision is not installed.
            ValueError: the task finds nothing that has a place.
        """
        raise ValueError(
            f"{type(self).__name__} has no boxes or masks, which supervision is about: use "
            "to_rows() or to_dataframe()"
        )

    def heatmap(self, word: str) -> Any:
        """Where the photo looks like a word, one of :attr:`names` or any other.

        The photo is encoded again for each word.

        Returns:
            A :class:`~mmclipdis.apis.results.heatmap.HeatMap` at the size of the photo.

        Raises:
            ValueError: the result was not made by an inferencer; an empty word; or a model without
                a dense map.
        """
        if self.look is None:
            raise ValueError(
                f"this {type(self).__name__} was not made by an inferencer, whose model draws heat "
                "maps: run the inferencer on the photo"
            )
        return self.look(self, word)

    def columns(self) -> list[str]:
        """What the rows of :meth:`to_rows` hold, also where there are none."""
        return [PHOTO, *([] if self.frame is None else [FRAME]), *self.COLUMNS]

    def _row(self, **values: Any) -> dict[str, Any]:
        """A row that begins with what the photo is called."""
        where: dict[str, Any] = {PHOTO: str(self.path) if self.path else ""}
        if self.frame is not None:
            where[FRAME] = self.frame
        return {**where, **values}

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but the way to the model."""
        return {**self.__dict__, "look": None}

    def _repr_png_(self) -> bytes:
        """The picture that notebooks show."""
        return png_bytes(self.draw())

    def __repr__(self) -> str:
        height, width = self.size
        photo = f"{self.path.name if self.path else 'photo'} ({width} x {height})"
        frame = "" if self.frame is None else f", frame {self.frame}"
        return f"{type(self).__name__}({photo}{frame}: {self._summary()})"


def title_of(path: Path | None, frame: int | None) -> str:
    """Name of a photo without folder and ending, with the number of a frame."""
    stem = path.stem if path else "photo"
    return stem if frame is None else f"{stem}_{frame:06d}"


def kind_of(result: Result, kind: str | None) -> str:
    """The kind of a picture, the first of ``KINDS`` by default.

    Raises:
        ValueError: the result has no such picture.
    """
    if kind is None:
        return result.KINDS[0]
    if kind not in result.KINDS:
        raise ValueError(
            f"{type(result).__name__} draws {', '.join(result.KINDS)}; there is no kind {kind!r}"
        )
    return kind


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def to_coco(results: Iterable[Result], masks: str = "rle") -> dict[str, Any]:
    """The results of several photos, for the same words, as one COCO json.

    Raises:
        ValueError: the results are about different words.
    """
    merged: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for number, result in enumerate(results, start=1):
        first = len(merged["annotations"]) + 1
        part = result.to_coco(number, first, masks)
        if number > 1 and part["categories"] != merged["categories"]:
            raise ValueError(
                f"photo {number} was searched for other words than those before it: categories of "
                "one json are the same for all photos"
            )
        merged["categories"] = part["categories"]
        merged["images"] += part["images"]
        merged["annotations"] += part["annotations"]
    return merged


def to_dataframe(results: Iterable[Result]) -> Any:
    """The rows of several results as one pandas ``DataFrame``.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "to_dataframe() needs pandas, which is not installed; run: pip install pandas "
            "(to_rows() gives the same rows as plain dicts)"
        ) from error
    listed = list(results)
    rows = [row for result in listed for row in result.to_rows()]
    return pandas.DataFrame(rows, columns=columns_of(result.columns() for result in listed))


def supervision() -> Any:
    """The package supervision, which is optional.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import supervision as package
    except ImportError as error:
        raise ImportError(
            "to_supervision() needs supervision, which is not installed; run: pip install "
            "supervision"
        ) from error
    return package


def some_of(found: Sequence[tuple[str, float]], most: int = 3) -> str:
    """The first pairs of a name and a value in [0, 1], as ``'kite 0.91, sand 0.06, ...'``."""
    listed = [f"{name} {value:.2f}" for name, value in found[:most]]
    return ", ".join([*listed, *(["..."] if len(found) > most else [])]) or "nothing"
