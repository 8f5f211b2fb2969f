"""Which labels of a multi-label data set are known when only a part of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray


def known_labels(
    names: Sequence[str], num_classes: int, share: float, seed: int
) -> NDArray[np.bool_]:
    """Known labels, bool (images, num_classes), each with probability ``share`` on its own.

    The row of an image is a function of its name, the seed and the share: independent of the
    other images, of their order and of the process that draws it. What is known at a smaller
    share is known at a larger one, too.

    Args:
        names: one a image, unique in the data set.
        num_classes: N.
        share: probability in (0, 1].
        seed: at least 0.
    """
    rows = [_uniform(f"{seed}/{name}", num_classes) < share for name in names]
    return np.array(rows, dtype=bool).reshape(len(names), num_classes)


def _uniform(key: str, count: int) -> NDArray[np.float64]:
    """Numbers (count,) in [0, 1) that look random and are a function of the key."""
    # Fast for many images, and the same on every machine and under every version of NumPy.
    bits = hashlib.shake_128(key.encode()).digest(4 * count)
    return np.frombuffer(bits, "<u4") / 2.0**32


def load_mask(path: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read known labels, bool (images, classes), from a ``.npy`` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no array of bool of that size.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path!r}; set partial_mask_file")
    try:
        mask = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is no .npy file with one array ({error})") from error
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != size:
        found = (
            f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        )
        raise ValueError(
            f"{path} holds {found}, but the data set needs bool {size}: (images, classes), true "
            "where the label is known"
        )
    return mask
