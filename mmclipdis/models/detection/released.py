"""What converters of released detectors share: their files, the config's detector, what fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from mmclipdis.clip.towers.readout import AnyReadout
from mmclipdis.clip.weights import activation_mark, readout_mark
from mmclipdis.clip.weights.renaming import LayoutReport
from mmclipdis.models.detection.names import config_metainfo

ENCODER = "backbone.encoder."
READOUT, ACTIVATION = ENCODER + readout_mark.MARK, ENCODER + activation_mark.MARK


def dataset_meta(config: Config, content: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names of classes for the ``dataset_meta`` of our file, which mmdet's inferencers read.

    They are those of the config's data set, with its base and novel classes; where these stand in a
    file that is not there (OV-LVIS), the ``CLASSES`` of the released file, if it has any.
    """
    found = config_metainfo(config) or {}
    if not found:
        found = {"classes": (content.get("meta") or {}).get("CLASSES")}
    kept = ("classes", "base_classes", "novel_classes")
    return {key: tuple(found[key]) for key in kept if found.get(key)}


def tensors_in(state: Any, source: str) -> dict[str, Tensor]:
    """A state dict, if it is one.

    Raises:
        ValueError: It is none or empty, or holds something besides tensors.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{source!r} holds no state dict")
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"{source!r}: {others[0]!r} in the state dict is no tensor; save the weights alone"
        )
    return dict(state)


def build_on_meta(config: Config, kind: type, folder: str) -> Any:
    """The detector of a config without storage for its weights.

    Args:
        config: With the detector under ``model``.
        kind: What it has to be.
        folder: Where such configs are, for the message.

    Raises:
        ValueError: the config has another model.
    """
    init_default_scope(config.get("default_scope", "mmdet"))
    with torch.device("meta"):
        model = MODELS.build(config.model)
    if not isinstance(model, kind):
        raise ValueError(f"the config's model is a {type(model).__name__}; give one of {folder}")
    return model


def add_marks(
    state: dict[str, Tensor],
    expected: Mapping[str, Tensor],
    report: LayoutReport,
    readout: AnyReadout,
) -> None:
    """Add to ``state`` what only our files have: marks, and counters that old norms lack.

    Args:
        state: Converted weights.
        expected: State dict of the config's detector.
        report: Is told of what is added.
        readout: What the released weights were trained with.
    """
    state[READOUT] = readout_mark.encode_readout(readout)
    report.added[READOUT] = "what the released weights were trained with"
    state[ACTIVATION] = expected[ACTIVATION]
    report.added[ACTIVATION] = "the config's arch"
    for key in expected:
        norm, _, leaf = key.rpartition(".")
        if leaf == "num_batches_tracked" and key not in state and norm + ".running_mean" in state:
            state[key] = torch.tensor(0)
            report.added[key] = "counter of a norm that had none; only its training reads it"


def check_fits(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str, remedy: str
) -> None:
    """Compare names and shapes with those of the config's detector.

    Raises:
        ValueError: naming the first entries that are missing, left over or of another shape.
    """
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in expected]
    problems += [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and key != READOUT and state[key].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"{source!r} is not of the config's detector: {'; '.join(problems[:3])}{more}; {remedy}"
        )
