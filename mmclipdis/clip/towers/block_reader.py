"""The last block of a CLIP tower, read in several ways (:mod:`mmclipdis.clip.towers.attention`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.clip.towers.affinity import Guide, mix
from mmclipdis.clip.towers.attention import (
    finish_block,
    mixed_heads,
    neighbour_bias,
    split_heads,
)
from mmclipdis.clip.towers.blocks import view_of
from mmclipdis.clip.towers.features import tokens_to_map
from mmclipdis.clip.towers.readout import READOUTS, Readout

NO_GUIDE = (
    "the readout has an affinity, and there is nothing to make it of: give the backbone a vision "
    "model, vfm=dict(type='TimmVFM', model='dino-B-8', ...)"
)


class BlockReader:
    """The last block at one input, read in several ways; each projection is computed once.

    Args:
        block: Block of open_clip or timm.
        x: Its input, ``(B, p + N, D)``, the ``p`` prefix tokens (CLS) first; they take part as
            keys and values.
        rope: Rotary table of the ``N`` patches, for blocks that have rotary positions.
        grid: Patches (h, w), for readouts that look at where a patch lies.
        prefix: Tokens ``p`` before the patches.

    Attributes:
        normed: ``x`` behind the norm of the block, ``(B, p + N, D)``.
    """

    def __init__(
        self,
        block: nn.Module,
        x: Tensor,
        rope: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        prefix: int = 1,
    ) -> None:
        self.block = block
        self.x = x
        self.rope = rope
        self.grid = grid
        self.prefix = prefix
        self.view = view_of(block, rope)
        self.normed = self.view.norm(x)
        self._projected: dict[str, Tensor] = {}
        self._ordinary: Tensor | None = None

    def parts(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The asked ones of the ``q``, ``k``, ``v`` projections, each ``(B, p + N, D)``."""
        names = tuple(names)
        missing = [name for name in names if name not in self._projected]
        self._projected |= self.view.project(self.normed, missing)
        return {name: self._projected[name] for name in names}

    def ordinary(self) -> Tensor:
        """Output ``(B, p + N, D)`` of the block as CLIP has it."""
        if self._ordinary is None:
            out = self._attend(self.parts("qkv"), ("qk",))
            self._ordinary = finish_block(self.block, self.x, out, residual="token", ffn=True)
        return self._ordinary

    def cls(self) -> Tensor:
        """CLS row ``(B, 1, D)`` of :meth:`ordinary`, for the price of a single query."""
        if self._ordinary is not None:
            return self._ordinary[:, :1]
        query = self.view.project(self.normed[:, :1], "q")
        out = self._attend(query | self.parts("kv"), ("qk",))
        return finish_block(self.block, self.x[:, :1], out, residual="token", ffn=True)

    def beside(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Output ``(B, R, D)`` for tokens that look at those of the block, and are seen by none.

        Args:
            tokens: ``(B, R, D)``, without positions of their own.
            seen: ``(B, 1, R, p + N)`` bool, which tokens of the block each looks at.
        """
        view, parts = self.view, self.parts("kv")
        query = view.project(view.norm(tokens), "q")["q"]
        q, k, v = (split_heads(x, view.heads) for x in (query, parts["k"], parts["v"]))
        out = F.scaled_dot_product_attention(q, view.rotate(k), v, seen)
        out = view.merge(out.transpose(1, 2).flatten(2))
        return finish_block(self.block, tokens, out, residual="token", ffn=True)

    def queries_and_keys(self) -> tuple[Tensor, Tensor]:
        """Those of the ordinary attention, with rotary positions: ``(B, heads, p + N, d)`` each."""
        query, key = (split_heads(part, self.view.heads) for part in self.parts("qk").values())
        return self.view.rotate(query), self.view.rotate(key)

    def values(self, x: Tensor | None = None) -> Tensor:
        """Values of the patches, a map ``(B, D, h, w)``; or those of another input of the block.

        Raises:
            ValueError: without ``grid``.
        """
        parts = self.parts("v") if x is None else self.view.project(self.view.norm(x), "v")
        return tokens_to_map(parts["v"][:, self.prefix :], self._known_grid())

    def attention(self, terms: Sequence[str], scale: str = "sqrt") -> Tensor:
        """Attention output ``(B, N, D)`` of the patches."""
        parts = self.parts(Readout(tuple(terms)).parts)
        return self._attend(parts, terms, scale, first_query=self.prefix)

    def patches(
        self,
        readout: Readout,
        guide: Guide | None = None,
        layers: Sequence[BlockReader] = (),
    ) -> Tensor:
        """Patch tokens ``Z`` ``(B, N, D)`` under ``readout``, or one a token of the guide.

        Args:
            readout: How the block is read.
            guide: What the term ``affinity`` is made of.
            layers: Readers of the blocks of the term ``layers``.

        Raises:
            ValueError: the readout has an affinity and there is no guide; or it has other terms as
                well, and the guide's tokens lie on another grid than those of CLIP.
        """
        if self._ordinary is not None and readout == READOUTS["vanilla"]:
            return self._ordinary[:, self.prefix :]
        if not readout.attention:
            nothing = torch.zeros_like(self.x[:, self.prefix :])
            return self._residual_added(readout, nothing)
        return self._finished(readout, self._mixed(readout, guide, layers)[0])

    def patches_and_spatial(
        self, readout: Readout, guide: Guide | None, layers: Sequence[BlockReader], mean: Tensor
    ) -> tuple[Tensor, Tensor]:
        """:meth:`patches`, and the tokens ``(B, n, D)`` of the spatial branch of the readout.

        Args:
            readout, guide, layers: As in :meth:`patches`.
            mean: Mean ``(B, p + N, D)`` of outputs of blocks.

        Raises:
            ValueError: as :meth:`patches`.
        """
        out, spatial = self._mixed(readout, guide, layers, (self.values(mean),))
        return self._finished(readout, out), self.view.merge(spatial)

    def _finished(self, readout: Readout, out: Tensor) -> Tensor:
        return self._residual_added(readout, self.view.merge(out))

    def _residual_added(self, readout: Readout, out: Tensor) -> Tensor:
        kept = readout.residual, readout.ffn, readout.residual_weight
        return finish_block(self.block, self.x, out, *kept)

    def _mixed(
        self,
        readout: Readout,
        guide: Guide | None,
        layers: Sequence[BlockReader],
        more: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ...]:
        """``O`` of the patches, heads side by side, ``(B, N, D)``; then ``W V`` of more values."""
        factors = dict(zip(readout.attention, readout.factors, strict=True))
        by_affinity = factors.pop("affinity", None)
        total: Tensor | None = None
        if factors:
            bias = None
            if readout.neighbours is not None:
                grid = self._known_grid()
                bias = neighbour_bias(grid, readout.neighbours, self.x.device, self.prefix)
            total = self._heads(
                self.parts(readout.parts),
                tuple(factors),
                readout.scale,
                first_query=self.prefix,
                factors=tuple(factors.values()),
                bias=bias,
                layers=[layer.queries_and_keys() for layer in layers],
            )
        if by_affinity is None or readout.affinity is None:
            return (cast(Tensor, total),)
        if guide is None:
            raise ValueError(NO_GUIDE)
        values = torch.cat([self.values(), *more], dim=1)  # one pass over the matrix for all
        both = mix(readout.affinity, guide, values)
        mixed, *rest = both.chunk(1 + len(more), dim=-1)
        mixed = mixed if by_affinity == 1 else by_affinity * mixed
        if total is None:
            return mixed, *rest
        if guide.grid != self.grid:
            raise ValueError(
                f"the affinity has {guide.grid} tokens and CLIP {self.grid}: with the terms "
                f"{tuple(factors)} beside it both need the same grid; choose a vision model with "
                "CLIP's patch size"
            )
        return total + mixed, *rest

    def _known_grid(self) -> tuple[int, int]:
        if self.grid is None:
            raise ValueError("BlockReader needs grid=(h, w), the patches of its tokens")
        return self.grid

    def _heads(
        self, parts: dict[str, Tensor], terms: Sequence[str], scale: str, **more: Any
    ) -> Tensor:
        length = self.normed.norm(dim=-1).mean(dim=1) if "gem" in terms else None
        return mixed_heads(self.view, parts, terms, scale, length=length, **more)

    def _attend(
        self, parts: dict[str, Tensor], terms: Sequence[str], scale: str = "sqrt", **rows: int
    ) -> Tensor:
        return self.view.merge(self._heads(parts, terms, scale, **{"first_query": 0, **rows}))


def read_last_block(
    block: nn.Module,
    x: Tensor,
    readout: Readout,
    rope: Tensor | None = None,
    grid: tuple[int, int] | None = None,
    guide: Guide | None = None,
    prefix: int = 1,
) -> Tensor:
    """Patch tokens ``(B, N, D)`` of the last block under ``readout``; see :class:`BlockReader`."""
    return BlockReader(block, x, rope, grid, prefix).patches(readout, guide)
