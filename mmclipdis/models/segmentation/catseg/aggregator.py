"""Cost aggregation of CAT-Seg: from image and text embeddings to one logit map per class.

Source: CAT-Seg: Cost Aggregation for Open-Vocabulary Semantic Segmentation (CVPR 2024), released
code. The modules compute what the released code computes, with less work; each shortcut is
explained where it is taken and compared with the plain form in the tests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmclipdis.models.segmentation.catseg.class_layers import ClassAggregation
from mmclipdis.models.segmentation.catseg.common import (
    RECOMPUTE,
    Recompute,
    channels_first,
    channels_last,
    recomputed,
)
from mmclipdis.models.segmentation.catseg.decoder import Decoder
from mmclipdis.models.segmentation.catseg.spatial_layers import SpatialAggregation

DROPPED_LOGIT = -100.0
"""Logit of a class that the ``max_classes`` best of an image left out (as in the reference)."""

CPU_CHUNK_MB = 5.0
"""Default ``chunk_mb`` on a CPU, whose caches like small tensors: 16 classes of one 24x24 grid."""
GPU_CHUNK_MB = 24.0
"""Default elsewhere, where small tensors leave the device idle: 16 classes of five 24x24 grids."""


class AggregatorLayer(nn.Module):
    """Spatial aggregation of every class, then class aggregation at every position."""

    def __init__(self, spatial: SpatialAggregation, classes: ClassAggregation) -> None:
        super().__init__()
        self.spatial = spatial
        self.classes = classes


class CATSegAggregator(nn.Module):
    """Turn the cosine cost volume into logits.

    The cost volume ``cos(image[h, w], text[t])`` is embedded by a 7x7 convolution, refined by
    ``num_layers`` pairs of spatial and class aggregation and decoded with image guidance. The
    model is equivariant to permutations of the classes and treats images independently.

    Args:
        embed_dim: Channels of the joint image-text space.
        hidden_dim: Channels of the class maps.
        num_layers: Pairs of spatial and class aggregation.
        num_heads: Attention heads in both.
        window_size: Side of the attention windows in tokens. The grid need not be a multiple of
            it: windows at the border are smaller.
        guidance_dims: Channels of the image guidance of each decoder stage. Stage ``i`` expects it
            at ``2^(i+1)`` times the grid.
        guidance_proj_dims: Channels they are projected to.
        decoder_dims: Output channels of each decoder stage.
        pad_len: Class sequences are padded to this length with learnable tokens; 0 for none. This
            changes the result, and released checkpoints need their 256.
        max_classes: Keep only so many classes an image, those with the highest cosine anywhere;
            the logits of the others are :data:`DROPPED_LOGIT`; a warning says so. ``None`` keeps
            all.
        train_pool: Side of the pooling before class aggregation in training.
        test_pool: The same in evaluation (the published numbers use 1).
        chunk_mb: Size of the fp32 class maps, in MB (1e6 bytes), that are processed at once where
            classes do not interact: as many classes as fit in, at least one. What a chunk needs for
            its own steps is about ten times as much. The result does not depend on it but for
            rounding. ``None`` takes what suits the device, :data:`CPU_CHUNK_MB` or
            :data:`GPU_CHUNK_MB`; ``inf`` takes all classes at once.
        recompute: Activations computed again in the backward pass instead of stored: ``'none'``,
            ``'cheap'`` (normalised features, MLP hidden layers of the spatial blocks; no
            convolution: half of the memory for little time) or ``'full'`` (all but the class maps
            between modules).

    Raises:
        ValueError: Dimensions that do not fit together, or an unknown ``recompute``.
    """

    def __init__(
        self,
        embed_dim: int = 512,
        hidden_dim: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        window_size: int = 12,
        guidance_dims: Sequence[int] = (256, 128),
        guidance_proj_dims: Sequence[int] = (32, 16),
        decoder_dims: Sequence[int] = (64, 32),
        pad_len: int = 256,
        max_classes: int | None = 256,
        train_pool: int = 2,
        test_pool: int = 1,
        chunk_mb: float | None = None,
        recompute: Recompute = "cheap",
    ) -> None:
        super().__init__()
        _check_options(hidden_dim, num_heads, window_size, pad_len, max_classes, chunk_mb)
        dims = guidance_dims, guidance_proj_dims, decoder_dims
        if not all(isinstance(d, Sequence) for d in dims) or len({*map(len, dims), 0}) != 2:
            raise ValueError(
                "guidance_dims, guidance_proj_dims and decoder_dims need one entry for each "
                f"decoder stage, got {guidance_dims}, {guidance_proj_dims}, {decoder_dims}."
            )
        if recompute not in RECOMPUTE:
            raise ValueError(f"recompute must be one of {RECOMPUTE}, got {recompute!r}.")
        if train_pool < 1 or test_pool < 1:
            raise ValueError(f"Pooling sides must be >= 1, got {train_pool} and {test_pool}.")
        self.embed_dim, self.hidden_dim, self.max_classes = embed_dim, hidden_dim, max_classes
        self.train_pool, self.test_pool = train_pool, test_pool
        self.chunk_mb = chunk_mb
        self._warned_of: int | None = None
        self.recompute: Recompute = recompute
        self.cost_embedding = nn.Conv2d(1, hidden_dim, 7, padding=3)
        self.appearance_projection = nn.Conv2d(embed_dim, hidden_dim, 3, padding=1)
        self.text_projection = nn.Linear(embed_dim, hidden_dim)
        self.guidance_projections = nn.ModuleList(
            nn.Conv2d(dim, out, 3, padding=1)
            for dim, out in zip(guidance_dims, guidance_proj_dims, strict=True)
        )
        self.layers = nn.ModuleList(
            AggregatorLayer(
                SpatialAggregation(hidden_dim, hidden_dim, num_heads, window_size),
                ClassAggregation(hidden_dim, hidden_dim, num_heads, pad_len),
            )
            for _ in range(num_layers)
        )
        self.decoder = Decoder(hidden_dim, guidance_proj_dims, decoder_dims)

    def forward(self, image: Tensor, text: Tensor, guidance: Sequence[Tensor]) -> Tensor:
        """Logits of every class.

        Args:
            image: Dense image embeddings ``(B, C, h, w)``. Their directions make the cost volume;
                as they are, they guide the spatial aggregation.
            text: Class embeddings ``(T, C)``, of any length.
            guidance: Image maps for the decoder stages, ``(B, guidance_dims[i], 2^(i+1) h,
                2^(i+1) w)``.

        Returns:
            Logits ``(B, T, 2^n h, 2^n w)`` with n decoder stages.

        Raises:
            ValueError: Inputs of other shapes.
        """
        self._check_inputs(image, text, guidance)
        text = F.normalize(text, dim=-1)
        cost = torch.einsum("bchw,tc->bthw", F.normalize(image, dim=1), text)
        projected = F.relu(self.text_projection(text))[None]  # (1, T, dim)
        kept = self.best_classes(cost)
        self._say_who_competes(cost.shape[1])
        if kept is None:
            return self.decode(self.aggregate(self.embed(cost), image, projected), guidance)
        classes = cost.shape[1]
        cost = cost.gather(1, kept[..., None, None].expand(-1, -1, *cost.shape[2:]))
        logits = self.decode(self.aggregate(self.embed(cost), image, projected[0][kept]), guidance)
        full = logits.new_full((len(logits), classes, *logits.shape[2:]), DROPPED_LOGIT)
        return full.scatter_(1, kept[..., None, None].expand_as(logits), logits)

    def best_classes(self, cost: Tensor) -> Tensor | None:
        """Classes with the highest cosine anywhere in the image, or ``None`` if all are kept.

        Args:
            cost: Cosines ``(B, T, h, w)``.

        Returns:
            Ascending class numbers ``(B, max_classes)``.
        """
        if self.max_classes is None or cost.shape[1] <= self.max_classes:
            return None
        best = cost.detach().amax(dim=(2, 3)).topk(self.max_classes, dim=1, sorted=False).indices
        return best.sort(dim=1).values

    def _say_who_competes(self, classes: int) -> None:
        """Warn, once for a number of classes, that ``max_classes`` leaves some of them out."""
        if self.max_classes is None or classes <= self.max_classes or classes == self._warned_of:
            return
        self._warned_of = classes
        print_log(
            f"CATSeg: {classes} classes, but max_classes={self.max_classes}: in each view only the "
            f"{self.max_classes} classes with the highest cosine compete, the others get no pixel "
            "of it, and in training their pixels teach nothing. 256 is the published setting; "
            "max_classes=None lets all compete.",
            logger="current",
            level=logging.WARNING,
        )

    def embed(self, cost: Tensor) -> Tensor:
        """Cosines ``(B, T, h, w)`` -> class maps ``(B, T, h, w, dim)``."""

        def convolve(part: Tensor) -> Tensor:
            maps = self.cost_embedding(part.flatten(0, 1).unsqueeze(1))
            return channels_last(maps, len(part))

        return self._in_chunks(convolve, cost, recompute=False).contiguous()

    def aggregate(self, maps: Tensor, image: Tensor, text: Tensor) -> Tensor:
        """All aggregation layers on class maps ``(B, T, h, w, dim)``.

        Args:
            maps: Output of :meth:`embed`. Overwritten unless gradients are needed.
            image: Dense image embeddings ``(B, C, h, w)``.
            text: Projected text ``(B or 1, T, dim)``.
        """
        appearance = F.relu(self.appearance_projection(image)).permute(0, 2, 3, 1)
        pool = self.train_pool if self.training else self.test_pool
        full = self.recompute == "full"
        for layer in cast(list[AggregatorLayer], self.layers):
            terms = layer.spatial.guidance_terms(appearance)
            spatial = partial(layer.spatial, terms=terms, recompute=self.recompute == "cheap")
            maps = self._in_chunks(spatial, maps, recompute=full, in_place=True)
            chunk = self._classes_at_once(maps if torch.is_grad_enabled() else maps[:1])
            maps = layer.classes(maps, text, pool, chunk, full)
        return maps

    def decode(self, maps: Tensor, guidance: Sequence[Tensor]) -> Tensor:
        """Class maps ``(B, T, h, w, dim)`` -> logits ``(B, T, 2^n h, 2^n w)``."""
        projected = [
            F.relu(project(g))
            for project, g in zip(self.guidance_projections, guidance, strict=True)
        ]
        shared = self.decoder.prepare(projected)

        def decode(part: Tensor) -> Tensor:
            logits = self.decoder(channels_first(part), shared, self.recompute == "cheap")
            return logits.squeeze(1).unflatten(0, (len(part), -1))

        return self._in_chunks(decode, maps, recompute=self.recompute == "full")

    def _in_chunks(
        self,
        function: Callable[[Tensor], Tensor],
        maps: Tensor,
        recompute: bool,
        in_place: bool = False,
    ) -> Tensor:
        """Apply a per-class ``function`` to ``maps`` (B, T, ...), ``chunk_mb`` at a time.

        With ``in_place``, and unless gradients are needed, the results overwrite ``maps``.
        """
        step, classes = self._classes_at_once(maps), maps.shape[1]
        parts = maps.split(step, dim=1)
        if torch.is_grad_enabled():
            outputs = [recomputed(function, part, when=recompute) for part in parts]
            return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]
        if len(parts) == 1:
            return function(maps)
        # Written where they belong, part by part: a list of parts and its cat would be held twice.
        out = maps if in_place else None
        for start, part in zip(range(0, classes, step), parts, strict=True):
            result = function(part)
            if out is None:
                out = result.new_empty((len(result), classes, *result.shape[2:]))
            out[:, start : start + step] = result
        return maps if out is None else out

    def _classes_at_once(self, maps: Tensor) -> int:
        """How many classes of ``maps`` (B, T, h, w, ...) ``chunk_mb`` allows, at least one."""
        budget = self.chunk_mb
        if budget is None:
            budget = CPU_CHUNK_MB if maps.device.type == "cpu" else GPU_CHUNK_MB
        batch, classes, height, width = maps.shape[:4]
        one_class = batch * height * width * self.hidden_dim * 4 / 1e6
        return max(1, int(min(budget / one_class, classes)))

    def _check_inputs(self, image: Tensor, text: Tensor, guidance: Sequence[Tensor]) -> None:
        if image.ndim != 4 or image.shape[1] != self.embed_dim:
            raise ValueError(
                f"Image embeddings must be (B, {self.embed_dim}, h, w), got {tuple(image.shape)}."
            )
        if text.ndim != 2 or text.shape[1] != self.embed_dim or len(text) == 0:
            raise ValueError(
                f"Class embeddings must be (T, {self.embed_dim}) with T > 0, "
                f"got {tuple(text.shape)}."
            )
        height, width = image.shape[2:]
        pool = self.train_pool if self.training else self.test_pool
        if min(height, width) < pool:
            raise ValueError(f"A {height}x{width} grid cannot be pooled by {pool}.")
        expected = [
            (len(image), project.in_channels, height << i, width << i)
            for i, project in enumerate(self.guidance_projections, start=1)
        ]
        shapes = [tuple(g.shape) for g in guidance]
        if shapes != expected:
            raise ValueError(f"Guidance maps must have shapes {expected}, got {shapes}.")


def _check_options(
    hidden_dim: int,
    num_heads: int,
    window_size: int,
    pad_len: int,
    max_classes: int | None,
    chunk_mb: float | None,
) -> None:
    counts = dict(hidden_dim=hidden_dim, num_heads=num_heads, window_size=window_size)
    for name, value in dict(counts, pad_len=pad_len, max_classes=max_classes).items():
        if not isinstance(value, int) and not (name == "max_classes" and value is None):
            raise ValueError(f"{name} must be a whole number, got {value!r}.")
    if num_heads < 1 or hidden_dim < 1 or hidden_dim % num_heads:
        raise ValueError(f"hidden_dim={hidden_dim} is not a multiple of num_heads={num_heads}.")
    if window_size < 1:
        raise ValueError(f"window_size must be >= 1, got {window_size}.")
    if pad_len < 0:
        raise ValueError(f"pad_len must be >= 0 (0 switches padding off), got {pad_len}.")
    if max_classes is not None and max_classes < 1:
        raise ValueError(f"max_classes must be >= 1 or None, got {max_classes}.")
    if chunk_mb is not None and not chunk_mb > 0:
        raise ValueError(f"chunk_mb must be positive (or None for the default), got {chunk_mb}.")
