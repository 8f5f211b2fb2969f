"""Checkpoints that ship: no optimiser, no copy of a CLIP that ships as well, matrices in float16.

Such a file is a ``.safetensors`` whose header says, as JSON, what was left out (``packaged``: start
of names -> arch and tag of :data:`mmclipdis.clip.weights.tags.PACKAGED`) and what the checkpoint
says of its data set (``dataset_meta``). :func:`complete` puts that back, so that every reader,
mmengine's as well, gets a whole checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mmclipdis.clip.weights.tags import PACKAGED
from mmclipdis.utils.finite import check_writable
from mmclipdis.utils.whole_files import write_bytes


def write_slim(path: str | Path, checkpoint: Mapping[str, Any], made_by: str) -> Path:
    """Write the weights of a checkpoint in the form that ships.

    Matrices and kernels are kept in float16, what has fewer axes (biases, norms and their
    statistics) as it is.

    Args:
        path: The ``.safetensors`` to write.
        checkpoint: With ``state_dict`` and ``meta``, as a training writes it.
        made_by: The command that made the weights, for the header.

    Raises:
        OSError: as :func:`mmclipdis.utils.whole_files.whole_file`.
        ValueError: another ending, no ``state_dict``, an entry that is no tensor or not finite, or
            a value beyond float16.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{str(path)!r}: the form that ships is .safetensors; name it so")
    if not isinstance(checkpoint.get("state_dict"), Mapping):
        raise ValueError(
            "the file holds no state_dict: give a checkpoint that a training wrote, not a file of "
            "weights alone"
        )
    state, left_out = _without_packaged(checkpoint["state_dict"])
    kept = {name: _halved(value).contiguous() for name, value in state.items()}
    check_writable(kept.items(), path)
    header = {
        "packaged": json.dumps(left_out),
        "dataset_meta": json.dumps(checkpoint.get("meta", {}).get("dataset_meta") or {}),
        "made_by": made_by,
    }
    write_bytes(path, save(kept, metadata=header))
    return Path(path)


def complete(
    state: Mapping[str, Tensor], header: Mapping[str, str], name: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Put back what :func:`write_slim` left out.

    Args:
        state: Entries of the file.
        header: Its texts.
        name: Of the file, for messages.

    Returns:
        All entries, what was float16 in float32, and the checkpoint's ``meta``. Both are as they
        were for a file of another kind.

    Raises:
        ValueError: the header is damaged, or names a CLIP that does not ship.
    """
    if "packaged" not in header:
        return dict(state), {}
    try:
        parts = json.loads(header["packaged"]).items()
        meta = json.loads(header.get("dataset_meta", "{}")).items()
        files = {start: PACKAGED[arch, tag] for start, (arch, tag) in parts}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"checkpoint {name!r} says of itself what this version cannot read ({error!r}); copy "
            "it again, or update mmclipdis"
        ) from error
    whole = {
        key: value.float() if value.dtype == torch.float16 else value
        for key, value in state.items()
    }
    device = next(iter(whole.values())).device if whole else torch.device("cpu")
    for start, file in files.items():
        whole |= {start + key: value.to(device) for key, value in _image_tower(file).items()}
    lists = {key: tuple(v) if isinstance(v, list) else v for key, v in meta}
    return whole, {"dataset_meta": lists}


def _without_packaged(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, tuple[str, str]]]:
    """The entries without towers that equal one that ships, and which stood where."""
    kept, left_out = dict(state), {}
    for (arch, tag), file in PACKAGED.items():
        tower = _image_tower(file)
        first = next(iter(tower), None)
        if first is None:
            continue  # a teacher, which has no image tower of CLIP
        for start in [key.removesuffix(first) for key in state if key.endswith(first)]:
            same = all(
                (own := state.get(start + key)) is not None and torch.equal(own.cpu(), value)
                for key, value in tower.items()
            )
            if same:
                left_out[start] = (arch, tag)
                kept = {k: v for k, v in kept.items() if k.removeprefix(start) not in tower}
    return kept, left_out


def _image_tower(file: Path) -> dict[str, Tensor]:
    tower = {k: v for k, v in load_file(file).items() if k.startswith("visual.")}
    return {name: tower[name].float() for name in sorted(tower)}


def _halved(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() and value.ndim > 1 else value
