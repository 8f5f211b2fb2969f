"""Fields of a :class:`~mmclipdis.clip.towers.readout.Readout` that are more than a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from mmclipdis.utils.finite import finite_number

T = TypeVar("T")

KEEPS = ("all", "positive")
SCOPES = ("all", "masks")
RESIDUALS = ("token", "cls", "none")


def block_numbers(what: str, value: Any) -> tuple[int, ...]:
    """``value`` as a tuple of ints, one or several; ``what`` names it in the ValueError else."""
    listed = isinstance(value, Iterable) and not isinstance(value, str)
    blocks = tuple(value) if listed else (value,)
    if any(not isinstance(index, int) or isinstance(index, bool) for index in blocks):
        raise ValueError(f"{what} must be numbers of blocks, got {value!r}")
    return blocks


def weighted_residual(residual: str, weight: Any) -> tuple[str, float]:
    """What is added to the attention output, and its factor; nothing is ``("none", 1.0)``.

    Raises:
        ValueError: there is no such residual, the factor is no finite number, or there is nothing
            that it could be a factor of.
    """
    if residual not in RESIDUALS:
        raise ValueError(f"Readout.residual must be one of {RESIDUALS}, got {residual!r}")
    weight = finite_number("Readout.residual_weight", weight)
    if residual == "none" and weight != 1:
        raise ValueError(
            f"Readout.residual_weight={weight} with residual='none', which adds nothing: set "
            "residual='token' (or 'cls'), or leave residual_weight out"
        )
    return (residual, weight) if weight else ("none", 1.0)


def check_last_blocks(attention: tuple[str, ...], count: Any) -> None:
    """Refuse a number of blocks to read that is none, or above 1 under terms of other tokens.

    Raises:
        ValueError: naming it.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"Readout.last_blocks must be a whole number from 1 on, got {count!r}")
    beyond = [term for term in ("layers", "affinity") if term in attention]
    if count > 1 and beyond:
        raise ValueError(
            f"Readout.last_blocks={count} with the term {beyond[0]!r}: several blocks are read by "
            "their own q, k and v only; leave one of the two out"
        )


def given(field: str, kind: type[T], value: Any) -> T | None:
    """A field of a readout that is a data class itself, or a dict of its fields, or None."""
    if value is None or isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"Readout.{field} is a dict of {kind.__name__}, got {value!r}")
    return fields_of(kind, value)


def fields_of(kind: Callable[..., T], value: Mapping[str, Any]) -> T:
    """An instance of a data class from a dict of its fields."""
    name, allowed = kind.__name__, [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(allowed))
    if unknown:
        raise ValueError(f"unknown {name} field(s) {unknown}; known: {allowed}")
    return kind(**value)


@dataclass(frozen=True)
class Affinity:
    """A row-stochastic matrix from tokens that another model, or another block, gives.

    With unit tokens ``u`` and ``S = u u^T``: ``L = scale (S - shift mean(S))``, the mean over all
    entries of one window; ``W = softmax_row(L)`` over the entries that are kept, the diagonal
    always among them (training_free_2 spec 1.2).

    Attributes:
        shift: How many means are taken off (beta of ProxyCLIP).
        scale: Factor of the logits (gamma of ProxyCLIP, 1/tau of CorrCLIP).
        keep: ``all`` entries, or ``positive``: those with ``L >= 0``.
        scope: ``all`` tokens look at each other, or with ``masks`` those of a region only
            (CorrCLIP).
        merge: With ``masks``: regions whose mean tokens differ in cosine by no more than this from
            the largest cosine of two regions are one; None merges none.

    Raises:
        ValueError: for values that are none of these.
    """

    shift: float = 0.0
    scale: float = 1.0
    keep: Literal["all", "positive"] = "all"
    scope: Literal["all", "masks"] = "all"
    merge: float | None = None

    def __post_init__(self) -> None:
        if self.keep not in KEEPS:
            raise ValueError(f"Affinity.keep must be one of {KEEPS}, got {self.keep!r}")
        if self.scope not in SCOPES:
            raise ValueError(f"Affinity.scope must be one of {SCOPES}, got {self.scope!r}")
        for name in ("shift", "scale"):
            object.__setattr__(self, name, finite_number(f"Affinity.{name}", getattr(self, name)))
        if self.scale <= 0:
            raise ValueError(f"Affinity.scale must be above 0, got {self.scale!r}")
        if self.merge is not None:
            if self.scope != "masks":
                raise ValueError("Affinity.merge joins regions: it needs scope='masks'")
            object.__setattr__(self, "merge", finite_number("Affinity.merge", self.merge))


@dataclass(frozen=True)
class Branches:
    """More token sets beside those of the last block: ``F = (N(main) + a N(spatial) + b N(sem)) W``

    ``N`` is the final norm, of each set apart, ``W`` the projection (training_free_2 spec 4.3).

    Attributes:
        spatial: Factor ``a`` of the tokens whose values are those that the last block has of the
            *mean of the outputs* of ``blocks``, mixed by the same affinity. 0: there are none.
        semantic: Factor ``b`` of the CLS token of each region, which in all blocks looks at CLS
            and at the patches of its region only, and is looked at by nobody. 0: there are none.
        blocks: 0-based blocks of ``spatial``, before the last; negative counts from the last. None
            is the published range of a tower of 12, 24 or 32 blocks, and of others all but the
            first two and the last two.

    Raises:
        ValueError: for values that are none of these.
    """

    spatial: float = 1.0
    semantic: float = 0.5
    blocks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("spatial", "semantic"):
            object.__setattr__(self, name, finite_number(f"Branches.{name}", getattr(self, name)))
        if not (self.spatial or self.semantic):
            raise ValueError("Branches.spatial and semantic are both 0: leave branches out")
        if self.blocks is not None:
            object.__setattr__(self, "blocks", block_numbers("Branches.blocks", self.blocks))
            if not self.spatial or not self.blocks:
                raise ValueError(
                    f"Branches.blocks={self.blocks} with spatial={self.spatial}: the spatial "
                    "branch is the mean of one block or more, and no other reads blocks"
                )

    def range_in(self, depth: int) -> tuple[int, ...]:
        """The blocks of the spatial branch in a tower of ``depth`` blocks, ascending.

        Raises:
            ValueError: there are no such blocks, or they are not before the last.
        """
        if not self.spatial:
            return ()
        if self.blocks is None:
            count = {12: 5, 24: 12, 32: 28}.get(depth, max(1, depth - 4))
            found = {*range(depth - 2 - count, depth - 2)}
        else:
            found = {index if index >= 0 else depth + index for index in self.blocks}
        if not found or not 0 <= min(found) <= max(found) < depth - 1:
            named = "its default range" if self.blocks is None else f"blocks={self.blocks}"
            raise ValueError(
                f"Branches: {named} of a tower of {depth} blocks; name blocks from 0 to "
                f"{depth - 2}, those before the last"
            )
        return tuple(sorted(found))


def checked_branches(affinity: Affinity | None, value: Any) -> Branches | None:
    """``branches`` of a readout, which need an affinity, and the semantic one masks.

    Raises:
        ValueError: they are no branches, or lack what they need.
    """
    branches = given("branches", Branches, value)
    if branches is None:
        return None
    if affinity is None:
        raise ValueError(
            "Readout.branches need the term 'affinity' and affinity=dict(...), and the readout has "
            "none"
        )
    if branches.semantic and affinity.scope != "masks":
        raise ValueError(
            "Readout.branches has a semantic branch, a token of each region, which needs "
            "masks: affinity=dict(scope='masks', ...), or branches=dict(semantic=0)"
        )
    return branches
