"""Loading of label maps, 8 or 16 bits a pixel, that names the file when it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

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
    The largest value (255 or 65535) is the ignored label.
    A photo that comes from no data set, as inferencers give it, passes without labels.

    Args:
        bits: 8 or 16 for each label; None takes what the data set says (``label_bits`` of a
            sample), or else 8.
        reduce_zero_label, backend_args, imdecode_backend: as in mmseg.

    Raises:
        ValueError: ``bits`` is neither 8 nor 16.
    """

    def __init__(
        self,
        reduce_zero_label: bool | None = None,
        backend_args: dict[str, Any] | None = None,
        imdecode_backend: str = "pillow",
        bits: int | None = None,
    ) -> None:
        super().__init__(
            reduce_zero_label=reduce_zero_label,
            backend_args=backend_args,
            imdecode_backend=imdecode_backend,
        )
        if bits is not None and bits not in _KINDS:
            raise ValueError(f"labels have 8 or 16 bits, got bits={bits!r}")
        self.bits = bits

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
            labels = mmcv.imfrombytes(content, flag="unchanged", backend=self.imdecode_backend)
            if labels is None:  # OpenCV's word for a broken file
                raise ValueError("no image")
        except TooManyPixelsError:
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no label map at {path}") from error
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"cannot read {path} as a label map; replace or remove it") from error
        labels = labels[..., 0] if labels.ndim == 3 and labels.shape[2] == 1 else labels
        if labels.ndim != 2:
            raise ValueError(
                f"label map {path} has {labels.shape[2]} values a pixel, as a coloured picture; "
                "labels are one number a pixel: convert the data set first"
            )
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
        return f"{super().__repr__()[:-1]}, bits={self.bits})"


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
