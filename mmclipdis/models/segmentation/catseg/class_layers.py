"""Class aggregation of CAT-Seg: linear attention over the classes at every position.

With ``phi(u) = elu(u) + 1`` the attention over a class sequence (pads included) is

    out_l = phi(q_l) . sum_s phi(k_s) v_s^T / (phi(q_l) . sum_s phi(k_s) + 1e-6).

The sums are all that one class needs to know of the others, so they are accumulated over chunks of
classes, the identical padding tokens add a multiple of one constant, and pads never become
queries. The text half of queries and keys is the same at every position: computed once per class.

Source: CAT-Seg (CVPR 2024), section 3.3 and the released code; linear attention of Katharopoulos
et al. (2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.models.segmentation.catseg.common import (
    Mlp,
    channels_first,
    channels_last,
    recomputed,
)
from mmclipdis.utils.precision import without_autocast

_EPS = 1e-6


def _phi(x: Tensor) -> Tensor:
    return F.elu(x) + 1


def _full_precision(x: Tensor) -> Tensor:
    """Sums over hundreds of classes do not fit the range and precision of half types."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class ClassAttention(nn.Module):
    """Linear attention with text-guided queries and keys and no output projection.

    ``q, k = W [x, text] + b``, ``v = W x + b``; columns as in
    :class:`~mmclipdis.models.segmentation.catseg.spatial_layers.GuidedWindowAttention`.
    """

    def __init__(self, dim: int, guidance_dim: int, num_heads: int) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.q = nn.Linear(dim + guidance_dim, dim)
        self.k = nn.Linear(dim + guidance_dim, dim)
        self.v = nn.Linear(dim, dim)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))

    def text_terms(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """``(..., G)`` -> what text and biases add to queries and keys, ``(..., dim)`` each."""
        return (
            F.linear(text, self.q.weight[:, self.dim :], self.q.bias),
            F.linear(text, self.k.weight[:, self.dim :], self.k.bias),
        )

    def summarise(self, x: Tensor, key_term: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the classes of ``x``.

        Args:
            x: Normalised tokens ``(B, P, T, dim)``, P positions.
            key_term: Text part of the keys ``(B, 1, T, dim)``.

        Returns:
            ``sum phi(k) v^T`` of shape (B, P, heads, d, d) and ``sum phi(k)`` of shape
            (B, P, heads, d).
        """
        key = _phi(self._heads(F.linear(x, self.k.weight[:, : self.dim]) + key_term))
        value = self._heads(self.v(x))
        key, value = _full_precision(key), _full_precision(value)
        with without_autocast(x):
            return torch.einsum("bpthd,bpthe->bphde", key, value), key.sum(2)

    def read(self, x: Tensor, query_term: Tensor, kv: Tensor, k_sum: Tensor) -> Tensor:
        """Attend from ``x`` (B, P, T, dim) to the summary of all classes -> (B, P, T, dim)."""
        query = _phi(self._heads(F.linear(x, self.q.weight[:, : self.dim]) + query_term))
        query = _full_precision(query)
        with without_autocast(x):
            out = torch.einsum("bpthd,bphde->bpthe", query, kv)
            norm = torch.einsum("bpthd,bphd->bpth", query, k_sum) + _EPS
        return (out / norm[..., None]).flatten(-2)


class ClassAggregation(nn.Module):
    """``x + up(y)``, ``y = p + attn(LN p, text)``, ``y += MLP(LN y)``, ``p = pool(x)``.

    The input enters twice, once pooled inside ``y`` and once at full resolution, as in the
    reference. Sequences shorter than ``pad_len`` are padded with learnable tokens, which changes
    the result; ``pad_len=0`` switches this off.

    Args:
        dim: Channels of the class maps.
        guidance_dim: Channels of the projected text.
        num_heads: Attention heads.
        pad_len: Length to which class sequences are padded, 0 for none.
        mlp_ratio: Hidden width of the MLP over ``dim``.
    """

    def __init__(
        self,
        dim: int,
        guidance_dim: int,
        num_heads: int,
        pad_len: int,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.pad_len = pad_len
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ClassAttention(dim, guidance_dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim, torch.relu_)
        self.padding_tokens: nn.Parameter | None = None
        self.padding_guidance: nn.Parameter | None = None
        if pad_len > 0:
            self.padding_tokens = nn.Parameter(torch.zeros(1, 1, dim))
            self.padding_guidance = nn.Parameter(torch.zeros(1, 1, guidance_dim))

    def forward(
        self,
        maps: Tensor,
        text: Tensor,
        pool: int = 1,
        chunk: int | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """Aggregate over classes.

        Args:
            maps: Class maps ``(B, T, h, w, dim)``. Overwritten, image by image, unless gradients
                are needed.
            text: Projected text ``(B or 1, T, guidance_dim)``.
            pool: Side of the average pooling before the attention.
            chunk: Classes handled at once (``None``: all); the result does not depend on it.
            recompute: Recompute each chunk's activations in the backward pass.

        Returns:
            Class maps of the same shape.
        """
        if len(maps) > 1 and not torch.is_grad_enabled():
            # The sums of a chunk are as large as 32 class maps of the image: one's fit a cache.
            for one, words in zip(maps.split(1), text.expand(len(maps), -1, -1), strict=True):
                self.forward(one, words.unsqueeze(0), pool, chunk)
            return maps
        classes = maps.shape[1]
        query_term, key_term = (term.unsqueeze(1) for term in self.attn.text_terms(text))
        step = chunk or classes
        spans = [slice(a, min(a + step, classes)) for a in range(0, classes, step)]

        def summarise(part: Tensor, term: Tensor) -> tuple[Tensor, Tensor]:
            return self.attn.summarise(self.norm1(_pool(part, pool)), term)

        kv, k_sum = self._padding(classes)
        for span in spans:
            part = recomputed(summarise, maps[:, span], key_term[:, :, span], when=recompute)
            kv, k_sum = kv + part[0], k_sum + part[1]

        def update(part: Tensor, term: Tensor) -> Tensor:
            y = _pool(part, pool)
            y = y + self.attn.read(self.norm1(y), term, kv, k_sum)
            y = y + self.mlp(self.norm2(y))
            return part + _unpool(y, pool, part.shape)

        if not torch.is_grad_enabled():
            for s in spans:
                maps[:, s] = update(maps[:, s], query_term[:, :, s])
            return maps
        outputs = [
            recomputed(update, maps[:, s], query_term[:, :, s], when=recompute) for s in spans
        ]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]

    def _padding(self, classes: int) -> tuple[Tensor, Tensor]:
        """What ``pad_len - classes`` identical padding tokens add to the two sums."""
        if self.padding_tokens is None or self.padding_guidance is None:
            zero = self.norm1.weight.new_zeros(())
            return zero, zero
        # Unused tokens count zero times, but stay in the graph: DDP stops on parameters without
        # gradient.
        count = max(self.pad_len - classes, 0)
        _, term = self.attn.text_terms(self.padding_guidance.unsqueeze(1))
        kv, k_sum = self.attn.summarise(self.norm1(self.padding_tokens.unsqueeze(1)), term)
        return count * kv, count * k_sum


def _pool(maps: Tensor, pool: int) -> Tensor:
    """``(B, T, h, w, C)`` -> pooled tokens by position, ``(B, P, T, C)``."""
    if pool > 1:
        pooled = F.avg_pool2d(channels_first(maps), pool)
        maps = channels_last(pooled, maps.shape[0])
    return maps.flatten(2, 3).transpose(1, 2)


def _unpool(tokens: Tensor, pool: int, shape: torch.Size) -> Tensor:
    """``(B, P, T, C)`` -> ``(B, T, h, w, C)``, bilinear with aligned corners."""
    height, width = shape[2:4]
    maps = tokens.transpose(1, 2).unflatten(2, (height // pool, width // pool))
    if pool == 1:
        return maps
    small = channels_first(maps)
    large = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=True)
    return channels_last(large, shape[0])
