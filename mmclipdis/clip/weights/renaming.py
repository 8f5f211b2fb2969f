"""Turning the names of one layout into those of another by a table of rules.

A rule is a pattern of the old name and what becomes of the entry: one name, several (rows of a
matrix that others hold as two), a part of a matrix that others hold whole, or nothing. No entry is
passed over in silence: one that no rule knows is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass
class LayoutReport:
    """What became of every key of a checkpoint.

    Attributes:
        renamed: Old name -> new name.
        kept: Names that stayed.
        dropped: Name -> reason.
        added: New name -> where its value comes from.
        assumed: What neither the checkpoint nor the user said; empty if nothing.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    assumed: str = ""

    def note(self, old: str, new: str) -> None:
        """Record that the entry ``old`` is now called ``new``."""
        if old == new:
            self.kept.append(old)
        else:
            self.renamed[old] = new

    @property
    def names(self) -> dict[str, str]:
        """Old -> new name of every entry that is still there."""
        return {**{key: key for key in self.kept}, **self.renamed}

    def summary(self) -> str:
        """The counts in one line."""
        counts = [f"{len(self.renamed)} keys renamed", f"{len(self.kept)} kept"]
        counts.append(f"{len(self.dropped)} dropped")
        if self.added:
            counts.append(f"{len(self.added)} added")
        return ", ".join(counts)

    def __str__(self) -> str:
        lines = [f"{old} -> {new}" for old, new in self.renamed.items()]
        lines += [f"{key} kept" for key in self.kept]
        lines += [f"{key} dropped: {reason}" for key, reason in self.dropped.items()]
        lines += [f"{key} added: {source}" for key, source in self.added.items()]
        return "\n".join([*lines, self.summary()])


Change = Callable[[Tensor], Tensor]
#: What turns the weights of a layout into open_clip's.
Convert = Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], LayoutReport]]


class Rule(NamedTuple):
    """What becomes of the entries whose whole name matches a pattern.

    Attributes:
        pattern: Regular expression.
        names: New names, with ``\\1`` for what the pattern holds in brackets. ``NAME[q|qkv]`` is
            the part q of ``NAME``, which is put together from q, k and v along its rows.
        changes: What each of them is of the entry; none: the entry itself.
    """

    pattern: str
    names: tuple[str, ...]
    changes: tuple[Change, ...] = ()


def rule(pattern: str, name: str, change: Change | None = None) -> Rule:
    """A rule with one new name."""
    return Rule(pattern, (name,), () if change is None else (change,))


def renamed_by(
    rules: Iterable[Rule],
    state: Mapping[str, Tensor],
    what: str,
    reasons: Iterable[tuple[str, str]] = (),
) -> tuple[dict[str, Tensor], LayoutReport]:
    """Apply the first rule that matches each entry of a state dict.

    Args:
        rules: Of the layout, in the order in which they are tried.
        state: Its weights.
        what: Name of the layout, for messages.
        reasons: Pattern of names -> why such entries are dropped.

    Returns:
        The renamed weights and what became of every entry.

    Raises:
        ValueError: for an entry that no rule knows, or two that become one.
    """
    table = [(re.compile(one.pattern), one) for one in rules]
    dropped = [(re.compile(pattern), reason) for pattern, reason in reasons]
    out: dict[str, Tensor] = {}
    report = LayoutReport()
    for key, value in state.items():
        reason = next((why for pattern, why in dropped if pattern.fullmatch(key)), None)
        if reason is not None:
            report.dropped[key] = reason
            continue
        found = next(((m, one) for regex, one in table if (m := regex.fullmatch(key))), None)
        if found is None:
            raise ValueError(
                f"weights of {what} with the entry {key!r}, which is not known of {what}; give a "
                "file of the plain model, without what was trained on top of it"
            )
        match, one = found
        for number, name in enumerate(map(match.expand, one.names)):
            if name in out:
                raise ValueError(f"two entries that become {name!r}, one is {key!r}")
            out[name] = one.changes[number](value) if one.changes else value
            whole = name.partition("[")[0]
            if number:
                report.added[whole] = f"rows of {key}"
            else:
                report.note(key, whole)
    return _joined(out, report), report


def _joined(state: Mapping[str, Tensor], report: LayoutReport) -> dict[str, Tensor]:
    """Put the parts ``NAME[q|qkv]`` together; a bias that is not there is zero."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        name, _, mark = key.partition("[")
        letters = mark.removesuffix("]").partition("|")[2]
        if not mark or name in out:
            out.setdefault(name, value)
            continue
        parts = {letter: state.get(f"{name}[{letter}|{letters}]") for letter in letters}
        lacking = ", ".join(letter for letter, tensor in parts.items() if tensor is None)
        if lacking and not name.endswith("bias"):
            raise ValueError(f"weights that lack the {lacking} of {name!r}")
        if lacking:
            report.added[f"{name} ({lacking})"] = _LACKS
        out[name] = torch.cat([torch.zeros_like(value) if t is None else t for t in parts.values()])
    return out


def transposed(value: Tensor) -> Tensor:
    """A matrix that the other layout multiplies from the other side."""
    return value.T.contiguous()


def first_third(value: Tensor) -> Tensor:
    """Rows of q of a fused q, k, v."""
    return value[: len(value) // 3]


def last_two_thirds(value: Tensor) -> Tensor:
    """Rows of k and v of a fused q, k, v."""
    return value[len(value) // 3 :]


def with_batch(value: Tensor) -> Tensor:
    """``(N, D)`` as ``(1, N, D)``, and ``(D,)`` as ``(1, 1, D)``."""
    return value.reshape(1, -1, value.shape[-1])


def without_batch(value: Tensor) -> Tensor:
    """A table ``(1, 1, N, D)`` or ``(1, N, D)`` as ``(N, D)``."""
    return value.reshape(value.shape[-2:])


def scalar(value: Tensor) -> Tensor:
    """A number that the file holds as a list of one."""
    return value.reshape(())


#: End of the name of a layer's weight or bias.
LEAF = r"\.(weight|bias)"
#: Scale and bias of the logits, where they have open_clip's names.
SCALARS = rule(r"(logit_scale|logit_bias)", r"\1", scalar)
_LACKS = "zero: the file has none"


def add_zero_bias(state: dict[str, Tensor], report: LayoutReport, weight: str) -> None:
    """Give a layer, of which the files have the weight alone, a bias of zeros.

    Args:
        state: Renamed weights, to which it is added.
        report: What became of them.
        weight: Name of the layer's weight.
    """
    rows, bias = state[weight], weight.removesuffix("weight") + "bias"
    state[bias] = torch.zeros(len(rows), dtype=rows.dtype)
    report.added[bias] = _LACKS


def prefixed(rules: Iterable[Rule], old: str, new: str) -> tuple[Rule, ...]:
    """The same rules for names that stand behind ``old`` (a pattern), to behind ``new``."""
    return tuple(
        Rule(old + one.pattern, tuple(new + name for name in one.names), one.changes)
        for one in rules
    )


def inside(rules: Iterable[Rule], old: str, new: str) -> tuple[Rule, ...]:
    """The same rules for the parts of numbered blocks.

    Args:
        rules: For names within a block.
        old: Pattern of what stands before them, with the number as its only group.
        new: What stands before them instead, with ``\\1`` for the number.
    """
    return tuple(
        Rule(old + one.pattern, tuple(new + _shifted(name) for name in one.names), one.changes)
        for one in rules
    )


def _shifted(name: str) -> str:
    return re.sub(r"\\(\d)", lambda group: f"\\{int(group[1]) + 1}", name)
