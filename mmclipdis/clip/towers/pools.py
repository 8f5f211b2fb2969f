"""How a tower gets from tokens to the space of text: its image embedding, and a vector a patch.

===============  ==================================  ===================================  ========
pool             of a patch ``x`` (behind the norm)  image embedding                      of
===============  ==================================  ===================================  ========
``ClsPool``      ``head(x)``                         ``head`` of CLS                      CLIP, EVA
``MapPool``      ``head(a + MLP(LN(a)))`` with       ``head`` of an attention of one      SigLIP, PE
                 ``a = W_o (W_v x + b_v) + b_o``     learned query over all tokens
``MeanPool``     ``head(norm(x))``                   ``head(norm(mean of patches))``      CLIPA
``ClsMeanPool``  ``head(x)``                         CLS, and the mean of the patches     dino.txt
===============  ==================================  ===================================  ========

The value path of ``MapPool`` is the pool on a sequence of that token alone, since a softmax over
one thing is 1: MaskCLIP's treatment of CLIP's attention pool (encoders spec 2.2). A patch must go
through the pool: its projection alone is no vector of the joint space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.clip.towers.attention import attend, split_heads


@dataclass(frozen=True)
class Pool(ABC):
    """What a tower of one kind does behind its final norm; see the module.

    Attributes:
        reads_cls_alone: Whether the image embedding is made of CLS, the first token, alone.
        parts: Vectors of the joint space side by side in the image embedding, ``E`` channels each.
    """

    reads_cls_alone: ClassVar[bool] = False
    parts: ClassVar[int] = 1

    def check(self, terms: str) -> None:
        """Refuse attention inside a pool that has none.

        Raises:
            ValueError: naming ``pool_attention``.
        """
        if terms != "identity":
            raise ValueError(
                f"pool_attention={terms!r}: the tower has no attention pool; leave it out, or take "
                "a SigLIP or a Perception Encoder"
            )

    def project(self, tower: Any, normed: Tensor, terms: str = "identity") -> Tensor:
        """Normed tokens ``(B, n, D)`` in the joint space, ``(B, n, E)``."""
        return cast(Tensor, tower.head(normed))

    @abstractmethod
    def pooled(self, tower: Any, tokens: Tensor) -> Tensor:
        """The image embedding ``(B, E)`` of the last block's output ``(B, p + N, D)``."""

    def read_by_embedding_alone(self, tower: Any) -> list[nn.Parameter]:
        """Parameters that only :meth:`pooled` reads: maps give them no gradient."""
        return []


@dataclass(frozen=True)
class ClsPool(Pool):
    """The embedding is the CLS token."""

    reads_cls_alone: ClassVar[bool] = True

    def pooled(self, tower: Any, tokens: Tensor) -> Tensor:
        """See :class:`Pool`."""
        return cast(Tensor, tower.to_joint(tokens[:, :1])[:, 0])


@dataclass(frozen=True)
class MapPool(Pool):
    """timm's ``AttentionPoolLatent``: one learned query over all tokens, prefix tokens too."""

    def check(self, terms: str) -> None:
        """See :class:`Pool`; what it can be read by, ``Readout`` knows."""

    def project(self, tower: Any, normed: Tensor, terms: str = "identity") -> Tensor:
        """See :class:`Pool`; with another term the values of the patches are mixed first."""
        pool = tower.attn_pool
        rows = pool.kv.weight.chunk(2), pool.kv.bias.chunk(2)
        value = F.linear(normed, rows[0][1], rows[1][1])
        if terms != "identity":
            parts = {"v": split_heads(value, pool.num_heads)}
            if terms == "kk":
                key = F.linear(normed, rows[0][0], rows[1][0])
                parts["k"] = pool.k_norm(split_heads(key, pool.num_heads))
            mixed = attend((terms,), parts, pool.scale)
            value = mixed.transpose(1, 2).flatten(2)
        a = pool.proj(value)
        return cast(Tensor, tower.head(a + pool.mlp(pool.norm(a))))

    def pooled(self, tower: Any, tokens: Tensor) -> Tensor:
        """See :class:`Pool`."""
        return cast(Tensor, tower.head(tower.attn_pool(tower.norm_post(tokens))))

    def read_by_embedding_alone(self, tower: Any) -> list[nn.Parameter]:
        """The learned query and its projection."""
        pool = tower.attn_pool
        return [pool.latent, *pool.q.parameters(), *pool.q_norm.parameters()]


@dataclass(frozen=True)
class MeanPool(Pool):
    """The embedding is the mean of the patches, normed after it is taken."""

    def pooled(self, tower: Any, tokens: Tensor) -> Tensor:
        """See :class:`Pool`."""
        mean = tokens[:, tower.prefix :].mean(dim=1, keepdim=True)
        return cast(Tensor, tower.to_joint(mean)[:, 0])


@dataclass(frozen=True)
class ClsMeanPool(Pool):
    """The embedding is CLS beside the mean of the patches: twice the channels of the map."""

    parts: ClassVar[int] = 2

    def pooled(self, tower: Any, tokens: Tensor) -> Tensor:
        """See :class:`Pool`; ``(B, 2 E)``."""
        joint = tower.to_joint(tokens)
        return torch.cat([joint[:, 0], joint[:, tower.prefix :].mean(dim=1)], dim=1)


CLS_POOL = ClsPool()


def like_map(embeddings: Tensor, channels: int) -> Tensor:
    """What of embeddings ``(..., C)`` is compared with dense maps, ``(..., channels)``.

    All of them, but of dino.txt's (an image's, and a text's) the last half: that of the patches.
    """
    return embeddings[..., -channels:]
