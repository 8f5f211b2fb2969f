"""The readout that weights were trained for, saved with them and checked when they are loaded.

The weights of all readouts have the same names and shapes, so a tower distilled with ``csa`` loads
without complaint into one that reads ``qq``, and gives wrong results. A mark beside the weights
(entry ``readout``: the readout's fields as JSON, in a uint8 tensor, since a state dict holds
tensors) turns that into an error. Weights without a mark are not checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from torch import Tensor, nn

from mmclipdis.clip.towers.readout import READOUTS, AnyReadout, Readout, get_readout
from mmclipdis.clip.weights.marks import decode_text, encode_text, remember

#: Name of the mark: in a state dict, at the top of a ``.pt`` and in the header of a safetensors.
MARK = "readout"
#: How many fields a readout had when marks began.
_FIRST_FIELDS = 4


def remember_readout(module: nn.Module) -> None:
    """Save ``module.readout`` with the weights of ``module``, and check it when they are loaded.

    A module whose ``any_readout`` is true loads every weight. See
    :func:`~mmclipdis.clip.weights.marks.remember`.

    Args:
        module: Has the attribute ``readout`` and perhaps ``any_readout``.

    Raises:
        ValueError: not here but when loading, if the weights were saved with another readout.
    """
    remember(module, MARK, _encode, _check)


def encode_readout(readout: AnyReadout) -> Tensor:
    """The mark of ``readout`` in a state dict: its fields as JSON, a uint8 tensor ``(n,)``."""
    return encode_text(readout_json(readout))


def readout_json(readout: AnyReadout) -> str:
    """The mark of ``readout`` in the header of a safetensors file.

    Fields that came later are left out at their defaults: an earlier package reads the mark, too.
    """
    later = {field.name: field.default for field in fields(readout)[_FIRST_FIELDS:]}
    given = asdict(readout).items()
    return json.dumps({k: v for k, v in given if k not in later or v != later[k]})


def decode_readout(mark: Any, source: str) -> AnyReadout:
    """The readout of a mark.

    Args:
        mark: Tensor of :func:`encode_readout` (cast to another type or not), JSON, a name of
            :data:`~mmclipdis.clip.towers.readout.READOUTS`, or a mapping of fields.
        source: Where it was found, for the message.

    Raises:
        ValueError: if it is none of these.
    """
    try:
        if isinstance(mark, Tensor):
            mark = decode_text(mark)
        if isinstance(mark, str) and mark.startswith("{"):
            mark = json.loads(mark)
        return get_readout(mark)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{source!r} holds an entry 'readout' that is no readout ({error}); remove the entry, "
            "or write it again with tools/model_converters/eva_clip.py"
        ) from error


def find_readout(
    entries: Mapping[str, Any], metadata: Mapping[str, str], prefix: str | None, source: str
) -> AnyReadout | None:
    """The readout a checkpoint is marked with, or None.

    Args:
        entries: All entries of the state dict, and those beside it in the file.
        metadata: Header of a safetensors file.
        prefix: What stands before ``visual.`` in the names of the image tower.
        source: The file, for messages.

    Raises:
        ValueError: for a mark that is no readout.
    """
    if MARK in metadata:
        return decode_readout(metadata[MARK], source)
    prefix = prefix or ""
    for place in (prefix, prefix.removesuffix("tower."), ""):
        if place + MARK in entries:
            return decode_readout(entries[place + MARK], source)
    return None


def same_readout(one: AnyReadout, other: AnyReadout) -> bool:
    """Whether two readouts compute the same, whatever their names; terms are summed in any order"""
    return _comparable(one) == _comparable(other)


def describe_readout(readout: AnyReadout) -> str:
    """Its names in configs (``'csa' (also 'declip')``), or a dict as a config gives it."""
    names = [name for name, known in READOUTS.items() if same_readout(known, readout)]
    if not names:
        kind = type(readout)
        defaults = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
        given = {k: v for k, v in asdict(readout).items() if defaults.get(k, MISSING) != v}
        return f"dict({', '.join(f'{k}={v!r}' for k, v in given.items())})"
    others = ", ".join(repr(name) for name in names[1:])
    return repr(names[0]) + (f" (also {others})" if others else "")


def check_readout(stored: AnyReadout | None, wanted: AnyReadout | None, source: str) -> None:
    """Refuse weights that were trained for another readout; None on either side says nothing.

    Raises:
        ValueError: naming both and the remedies.
    """
    if stored is None or wanted is None or same_readout(stored, wanted):
        return
    right = describe_readout(stored).split(" (also")[0]
    raise ValueError(
        f"{source} was saved with the readout {describe_readout(stored)}, but the model reads out "
        f"{describe_readout(wanted)}: its results would be wrong; set readout={right}, or "
        "any_readout=True to load the weights all the same"
    )


def _comparable(readout: AnyReadout) -> dict[str, Any]:
    found: dict[str, Any] = {"type": type(readout), **asdict(readout)}
    if "attention" in found:
        found["attention"] = set(found["attention"])
    if isinstance(readout, Readout):  # factors belong to terms, whatever their order
        found["weights"] = set(zip(readout.attention, readout.factors, strict=True))
    return found


def _encode(module: Any) -> Tensor:
    return encode_readout(_readout_of(module))


def _check(module: Any, mark: Tensor, source: str) -> None:
    if not getattr(module, "any_readout", False):
        check_readout(decode_readout(mark, source), _readout_of(module), source)


def _readout_of(module: Any) -> AnyReadout:
    return get_readout(module.readout)
