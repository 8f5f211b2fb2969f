"""The raw files of PASCAL Context with all of its 459 classes: names and label maps."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy.io import loadmat

NUM_CLASSES = 459
#: Label of the class that the labels themselves call "unknown"; it is scored like the others.
UNKNOWN = 430
IGNORED = 65535


def read_names(path: Path) -> list[str]:
    """Names of the 459 classes, from lines like ``1: accordion``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not number 459 names from 1, or the 431st is not "unknown".
    """
    if not path.is_file():
        raise FileNotFoundError(f"no list of classes {path}; it comes with PASCAL Context's .mat")
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    names = []
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(rf"\s*{number}\s*:\s*(\S.*?)\s*", line)
        if not match:
            raise ValueError(f"{path}: line {number} is {line!r}, expected '{number}: <name>'")
        names.append(match[1])
    if len(names) != NUM_CLASSES or names[UNKNOWN] != "unknown":
        what = f"class {UNKNOWN + 1} is {names[UNKNOWN]!r}" if len(names) > UNKNOWN else ""
        raise ValueError(
            f"{path} has {len(names)} classes{' and ' * bool(what)}{what}; PASCAL Context has "
            f"{NUM_CLASSES}, and its class {UNKNOWN + 1} is 'unknown'"
        )
    return names


def read_label_map(path: Path) -> np.ndarray:
    """``LabelMap`` of a .mat, unsigned (H, W), 1..459 and perhaps 0.

    Raises:
        ValueError: the file is damaged, or holds no such map.
    """
    try:
        labels = loadmat(path, variable_names=["LabelMap"]).get("LabelMap")
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"cannot read {path} as a .mat; extract it again") from error
    except Exception as error:  # damaged files raise nearly anything
        raise ValueError(f"cannot read {path} as a .mat; extract it again") from error
    if labels is None or labels.ndim != 2 or labels.dtype.kind != "u":
        raise ValueError(f"{path} has no LabelMap of unsigned integers in two dimensions")
    if labels.size and labels.max() > NUM_CLASSES:
        wrong = np.unique(labels[labels > NUM_CLASSES]).tolist()
        raise ValueError(f"{path} holds labels {wrong[:5]}; PASCAL Context has 1..{NUM_CLASSES}")
    return np.asarray(labels)
