"""What flows through the blocks of a CLIP tower: statistics of residual, attention and FFN.

ClearCLIP (ECCV 2024) draws norm, entropy, maximum and per-channel mean of these parts by block
(its figures 2 to 5), to show that the residual stream of the last blocks is what spoils the dense
map. Its text defines them in figures, so the definitions here are ours, and stand with
:class:`BlockStatistics`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmclipdis.clip.towers.attention import attention_output
from mmclipdis.clip.towers.blocks import view_of
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.utils.precision import at_least_fp32

#: Parts of a block ``X -> U = X + A -> U + F``: ``X``, ``A``, ``F``, and what the block gives.
PARTS = ("residual", "attention", "ffn", "output")
#: Statistics of a part that are one number.
STATISTICS = ("norm", "entropy", "maximum")


@dataclass
class _Sums:
    """Sums over images of one part of one block, in float64 on the CPU."""

    numbers: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    channels: Tensor | float = 0.0


class BlockStatistics:
    """Statistics of the parts of every block, summed up batch by batch.

    With the patch tokens ``x_i`` in ``R^D`` of a part of an image (CLS and registers are left out),
    each is a mean over the tokens of an image, and then over images:

    - ``norm``: ``mean_i |x_i|_2``.
    - ``entropy``: ``mean_i H_i / log D`` with ``H_i = -sum_c p_ic log p_ic`` and
      ``p_ic = x_ic^2 / |x_i|^2``: 1 where all channels are equally strong, 0 where one is alone.
      It does not change with the length of ``x_i``; of a token of zeros it is 0.
    - ``maximum``: ``max_ic |x_ic|``, of an image.
    - channel means: ``mean_i x_ic``, a number a channel.

    The parts are those of ordinary CLIP: ``X`` the input of the block, ``A`` its attention output
    (behind the output projection and any LayerScale), ``F`` its feed-forward branch of ``X + A``,
    and ``X + A + F``. So they are the same under every readout.

    Args:
        tower: Image tower of transformer blocks.

    Attributes:
        images: How many have been seen.
    """

    def __init__(self, tower: ImageTower) -> None:
        self.tower = tower
        self.images = 0
        self._sums = [{part: _Sums() for part in PARTS} for _ in range(tower.depth)]

    @torch.no_grad()
    def add(self, images: Tensor) -> None:
        """Run normalised RGB images ``(B, 3, H, W)`` through the tower once and add them.

        A block's parts are reduced before the next block runs; no ``L x L`` weights are made.
        """
        tower, rope = self.tower, self.tower.rope(images)
        x = tower.embed(images)
        for block, sums in zip(tower.blocks, self._sums, strict=True):
            view = view_of(block, rope)
            projected = view.project(view.norm(x), "qkv")
            attention = attention_output(block, projected, ("qk",), rope=rope)
            summed = x + attention
            ffn = view.feed_forward(summed)
            output = summed + ffn
            for part, tokens in zip(PARTS, (x, attention, ffn, output), strict=True):
                numbers, channels = image_statistics(tokens[:, tower.prefix :])
                sums[part].numbers += numbers.sum(0).double().cpu()
                sums[part].channels = sums[part].channels + channels.sum(0).double().cpu()
            x = output if view.after is None else view.after(output)
        self.images += len(images)

    def report(self) -> dict[str, Any]:
        """All statistics, ready for JSON.

        Returns:
            ``images``; ``blocks``, a list with for each part a dict of ``norm``, ``entropy``,
            ``maximum`` and ``channel_mean`` (``D`` numbers).

        Raises:
            ValueError: no image was added.
        """
        if not self.images:
            raise ValueError("no image was added: there is nothing to take the mean of")
        blocks = [{part: self._means(one) for part, one in sums.items()} for sums in self._sums]
        return {"images": self.images, "blocks": blocks}

    def _means(self, sums: _Sums) -> dict[str, Any]:
        means = (sums.numbers / self.images).tolist()
        channels = torch.as_tensor(sums.channels) / self.images
        return {**dict(zip(STATISTICS, means, strict=True)), "channel_mean": channels.tolist()}


def image_statistics(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics of each image's tokens, as :class:`BlockStatistics` defines them.

    Args:
        tokens: ``(B, N, D)``, of any floating type.

    Returns:
        ``(B, 3)`` in the order of :data:`STATISTICS`, and channel means ``(B, D)``; at least fp32.
    """
    tokens = at_least_fp32(tokens)
    norms = tokens.norm(dim=-1)
    tiny = torch.finfo(norms.dtype).tiny
    shares = (tokens / norms.clamp_min(tiny)[..., None]).square()
    entropy = torch.special.entr(shares).sum(dim=-1) / np.log(max(tokens.shape[-1], 2))
    largest = tokens.abs().amax(dim=(1, 2))
    numbers = torch.stack([norms.mean(dim=1), entropy.mean(dim=1), largest], dim=1)
    return numbers, tokens.mean(dim=1)
