"""Loading of label maps, 8 or 16 bits a pixel, that names the file when it cannot be used."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmclipdis.datasets.loading import BROKEN
from mmclipdis.utils.photo_sizes import size_problem
from mmclipdis.utils.pictures import TooManyPixelsError, check_pixels

#: Key of a sample with the bits of its labels; data sets without it have 8, as in mmseg.
LABEL_BITS = "label_bits"
_KINDS = {8: np.uint8, 16: np.uint16}


@TRANSFORMS.register_module()
class LoadReadableAnnotations(LoadAnnotations):
    """mmseg's ``LoadAnnotations`` for 8 and 16 bits, with one clear error for what does not fit.

    mmseg casts every label map to 8 bits, so that class 700 becomes 188 and 65535, "ignored", 255.
    Here the labels are kept; a file that has more bits than the data set reads is refused unless
    its labels fit, and so is one that has fewer, whose labels may have been cut off before.
    The largest value (255 or 65535) is the ignored label. Maps of three equal channels, as some
    programs save them, count as maps of one; JPEG, which changes labels, is refused. A photo that
    comes from no data set, as inferencers give it, passes without labels.

    Args:
        unlabelled: labels of the files that mean "no label"; they become the ignored label, which
            data sets, losses and metrics have by default, so that nothing else need be set. (mmseg:
            ``ignore_index`` in each of them. For 0 with classes from 1 on there is
            ``reduce_zero_label`` of the data set.)
        palette: colours of coloured maps, ``[[red, green, blue], ...]`` 0-255, one a label. Black
            is unlabelled if it is none of them; every other colour is an error.
        bits: 8 or 16 for each label; None takes what the data set says (``label_bits`` of a
            sample), or else 8.
        reduce_zero_label, backend_args, imdecode_backend: as in mmseg.

    Raises:
        ValueError: ``bits`` is neither 8 nor 16, ``unlabelled`` are no labels, or ``palette`` is no
            list of different colours.
    """

    def __init__(
        self,
        reduce_zero_label: bool | None = None,
        backend_args: dict[str, Any] | None = None,
        imdecode_backend: str = "pillow",
        bits: int | None = None,
        unlabelled: int | Sequence[int] = (),
        palette: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(
            reduce_zero_label=reduce_zero_label,
            backend_args=backend_args,
            imdecode_backend=imdecode_backend,
        )
        if bits is not None and bits not in _KINDS:
            raise ValueError(f"labels have 8 or 16 bits, got bits={bits!r}")
        self.bits = bits
        self.unlabelled = _label_list(unlabelled)
        self.palette = None if palette is None else _colours(palette)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load the labels of a sample; data sets give it ``seg_fields``, inferencers do not.

        Raises:
            ValueError: a sample of a data set has no label map; and as the file is read.
        """
        if "seg_map_path" not in results:
            if "seg_fields" not in results:
                return results
            raise ValueError(
                f"no label map is named for {results.get('img_path', 'a photo')}: set the data "
                "set's data_prefix.seg_map_path, or leave the annotations out of its pipeline"
            )
        loaded: dict[str, Any] = super().transform(results)
        return loaded

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        """Load ``results['seg_map_path']`` as labels (H, W), uint8 or uint16.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the system does not give the file: permissions, a failing disk.
            ValueError: the file is no image or above the limit of pixels, its size is not the
                photo's, or its labels have other bits than those of the data set.
        """
        path = results["seg_map_path"]
        labels = self._decode(path)
        photo = results.get("ori_shape")
        problem = photo is not None and size_problem(
            results.get("img_path", "its photo"), photo[:2], labels.shape, f"label map {path}"
        )
        if problem:
            raise ValueError(problem)
        bits = results.get(LABEL_BITS, 8) if self.bits is None else self.bits
        labels = fit_bits(labels, bits, path)
        if self.unlabelled:
            # a copy: what was decoded may be read-only
            nothing = np.isin(labels, self.unlabelled)
            labels = np.where(nothing, np.iinfo(labels.dtype).max, labels).astype(labels.dtype)
        if self._reduces_zero(results):
            labels = reduce_zero(labels)
        if results.get("label_map") is not None:
            labels = renumber(labels, results["label_map"])
        results["gt_seg_map"] = labels
        results["seg_fields"].append("gt_seg_map")

    def _decode(self, path: str) -> np.ndarray:
        try:
            content = fileio.get(path, backend_args=self.backend_args)
            check_pixels(content, name=path)
            if content.startswith(b"\xff\xd8\xff"):
                raise LossyLabelsError(
                    f"label map {path} is a JPEG, which changes the labels around every edge; "
                    "write label maps as PNG"
                )
            labels = mmcv.imfrombytes(content, flag="unchanged", backend=self.imdecode_backend)
            if labels is None:  # OpenCV's word for a broken file
                raise ValueError("no image")
        except (TooManyPixelsError, LossyLabelsError):
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no label map at {path}") from error
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"cannot read {path} as a label map; replace or remove it") from error
        if self.palette is not None:
            with Image.open(io.BytesIO(content)) as picture:
                return of_colours(np.asarray(picture.convert("RGB")), self.palette, path)
        if labels.ndim == 3:
            colours = labels[..., : 1 if labels.shape[2] < 3 else 3]  # the rest is transparency
            if (colours != colours[..., :1]).any():
                raise ValueError(
                    f"label map {path} has {labels.shape[2]} values a pixel, as a coloured "
                    "picture; labels are one number a pixel: give the colours, in the order of "
                    "the classes, as palette=[[red, green, blue], ...] of LoadReadableAnnotations"
                )
            labels = colours[..., 0]
        return np.asarray(labels)

    def _reduces_zero(self, results: Mapping[str, Any]) -> bool:
        wanted = bool(results["reduce_zero_label"])
        if self.reduce_zero_label is not None and bool(self.reduce_zero_label) != wanted:
            raise ValueError(
                f"reduce_zero_label is {wanted} in the data set and {self.reduce_zero_label} in "
                f"{type(self).__name__}; set it in the data set alone"
            )
        return wanted

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, bits={self.bits}, unlabelled={self.unlabelled})"


class LossyLabelsError(ValueError):
    """A label map in a format that changes its values."""


def _label_list(labels: Any) -> list[int]:
    listed = [labels] if isinstance(labels, int) else labels
    whole = isinstance(listed, Sequence) and not isinstance(listed, str)
    if not whole or any(type(n) is not int or not 0 <= n < 2**16 for n in listed):
        raise ValueError(
            f"unlabelled={labels!r} of LoadReadableAnnotations: it is a label of the files, such "
            "as 11, or a list of labels"
        )
    return list(listed)


def _colours(palette: Any) -> np.ndarray:
    """Colours as numbers (K,), red the highest byte."""
    try:
        colours = np.array(palette)
    except ValueError:  # of several lengths
        colours = np.zeros(0)
    sound = colours.ndim == 2 and colours.shape[1] == 3 and colours.dtype.kind in "iu"
    if not sound or colours.min() < 0 or colours.max() > 255:
        raise ValueError(
            "palette of LoadReadableAnnotations: it is [[red, green, blue], ...], 0 to 255, one "
            "colour a class"
        )
    numbers = as_numbers(colours)
    if len(np.unique(numbers)) < len(numbers):
        raise ValueError("palette of LoadReadableAnnotations has one colour for two classes")
    return numbers


def as_numbers(colours: np.ndarray) -> np.ndarray:
    """RGB (..., 3) as one number each: ``65536 red + 256 green + blue``."""
    numbers: np.ndarray = colours.astype(np.int64) @ np.array([65536, 256, 1])
    return numbers


def of_colours(picture: np.ndarray, palette: np.ndarray, path: str) -> np.ndarray:
    """Labels (H, W), uint8 or uint16, of a coloured map.

    Args:
        picture: RGB (H, W, 3), uint8.
        palette: Numbers (K,) of the colours, in the order of the labels.
        path: Of the file, for the message.

    Raises:
        ValueError: a colour is none of the palette, and not black.
    """
    numbers = as_numbers(picture)
    found, places = np.unique(numbers, return_inverse=True)
    order = np.argsort(palette)
    near = order[np.searchsorted(palette, found, sorter=order).clip(max=len(palette) - 1)]
    known = palette[near] == found
    wrong = np.flatnonzero(~known & (found != 0))
    if len(wrong):
        listed = [f"[{n >> 16}, {n >> 8 & 255}, {n & 255}]" for n in found[wrong[:3]].tolist()]
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"label map {path} has the colours {', '.join(listed)}{more}, which are none of the "
            f"{len(palette)} of the palette; add them, or paint unlabelled pixels black"
        )
    kind = np.uint8 if len(palette) <= 255 else np.uint16
    labels = np.where(known, near, np.iinfo(kind).max).astype(kind)
    return labels[places].reshape(numbers.shape)


def fit_bits(labels: np.ndarray, bits: int, path: str) -> np.ndarray:
    """Labels (H, W) as uint8 or uint16, whole.

    Args:
        labels: as they are in the file.
        bits: 8 or 16.
        path: of the file, for the message.

    Raises:
        ValueError: no whole numbers; labels that the bits do not hold; fewer bits than asked for.
    """
    if labels.dtype.kind not in "bui":
        raise ValueError(f"label map {path} holds {labels.dtype} numbers; labels are whole numbers")
    found = 8 * labels.dtype.itemsize
    if found < bits:
        raise ValueError(
            f"label map {path} has {found} bits a pixel, but the data set has {bits}-bit labels, "
            "and labels above 255 may have been cut off when it was written; write it again with "
            "the converter of the data set (tools/dataset_converters), as 16-bit PNG or TIFF"
        )
    largest = 2**bits - 1
    if found > bits or labels.dtype.kind == "i":
        low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
        if low < 0 or high > largest:
            remedy = (
                "read it with a data set of 16-bit labels (ADE20K847Dataset, ...), or with "
                "LoadReadableAnnotations(bits=16) and ignore_index=65535"
                if low >= 0 and high < 2**16
                else "convert the data set first"
            )
            raise ValueError(
                f"label map {path} holds labels {low} to {high} in {found} bits, but the data set "
                f"has {bits}-bit labels, 0 to {largest}; {remedy}"
            )
    kept: np.ndarray = labels.astype(_KINDS[bits], copy=False)
    return kept


def reduce_zero(labels: np.ndarray) -> np.ndarray:
    """Every label less one; 0 becomes the ignored label, which stays (255, or 65535 in 16 bits)."""
    ignored = np.iinfo(labels.dtype).max
    reduced = labels - labels.dtype.type(1)  # 0 wraps around to the ignored label
    reduced[labels == ignored] = ignored
    return reduced


def renumber(labels: np.ndarray, label_map: Mapping[int, int]) -> np.ndarray:
    """Labels (H, W) with the old numbers replaced by the new; those not in the map stay."""
    table = np.arange(np.iinfo(labels.dtype).max + 1, dtype=labels.dtype)
    for old, new in label_map.items():
        if old < len(table):  # a class that these bits do not hold is nowhere
            table[old] = new
    renumbered: np.ndarray = table[labels]
    return renumbered
