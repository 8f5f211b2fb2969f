"""Checkpoint contents as tensors, numbers, strings and containers of them, and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log

HISTORY_KEYS = {"log_history", "count_history", "max_length"}


def to_plain(value: Any, name: str = "value") -> Any:
    """Turn a value into what ``torch.load(weights_only=True)`` can read back.

    Arrays become tensors, NumPy scalars become Python numbers, paths become strings, and subclasses
    of dict, list, tuple, str and numbers become the built-in type.

    Args:
        name: what the value is called in the error.

    Raises:
        TypeError: the value, or something inside it, is an object of another class.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, np.generic):
        return to_plain(value.item(), name)
    if isinstance(value, PurePath):
        return str(value)
    for scalar in (int, float, str, bytes):
        if isinstance(value, scalar):
            return scalar(value)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        return {to_plain(k, name): to_plain(v, f"{name}.{k}") for k, v in value.items()}
    for container in (list, tuple, set):
        if isinstance(value, container):
            return container(to_plain(item, f"{name}[{i}]") for i, item in enumerate(value))
    raise TypeError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}; checkpoints hold only "
        "tensors, numbers, strings and containers of them."
    )


def without_odd_values(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the entries that can be saved, and warn about each one that is left out."""
    kept = {}
    for key, value in values.items():
        try:
            kept[key] = to_plain(value, f"{name}.{key}")
        except TypeError as error:
            print_log(f"Left out of the checkpoint: {error}", logger="current", level=30)
    return kept


def pack_message_hub(state: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a ``MessageHub.state_dict()`` into plain data; histories become two tensors each."""
    scalars = {}
    for key, history in state["log_scalars"].items():
        log, count = history.data
        scalars[key] = {
            "log_history": torch.from_numpy(np.array(log)),
            "count_history": torch.from_numpy(np.array(count)),
            "max_length": int(history.max_length),
        }
    info = without_odd_values(state["runtime_info"], "message_hub")
    kept = scalars.keys() | info.keys()
    resumed = {key: bool(flag) for key, flag in state["resumed_keys"].items() if key in kept}
    return {"log_scalars": scalars, "runtime_info": info, "resumed_keys": resumed}


def unpack_message_hub(state: Mapping[str, Any]) -> dict[str, Any]:
    """Undo :func:`pack_message_hub`; histories that are objects already stay as they are."""
    scalars = {}
    for key, value in state["log_scalars"].items():
        if isinstance(value, Mapping) and value.keys() == HISTORY_KEYS:
            value = HistoryBuffer(
                value["log_history"].cpu().numpy(),
                value["count_history"].cpu().numpy(),
                value["max_length"],
            )
        scalars[key] = value
    return {**state, "log_scalars": scalars}


def without_functions(states: Any) -> Any:
    """States of schedulers without the functions in them (``anneal_func`` of OneCycleLR).

    They are settings, which the scheduler of the resumed run has from its config.
    """
    if isinstance(states, dict):
        kept = {k: v for k, v in states.items() if not inspect.isroutine(v)}
        return {k: without_functions(v) for k, v in kept.items()}
    return [without_functions(state) for state in states] if isinstance(states, list) else states
