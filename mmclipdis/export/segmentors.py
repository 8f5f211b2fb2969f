"""Segmentors as programs: from a normalised image to the probability of every class and pixel.

A program holds the image tower, the table of text embeddings and the head, and nothing of the text
tower. It computes what the model's own ``predict`` does with ``test_cfg.return_probs``, at the size
of the image, for a batch and, where that is open, at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.models.score_scale import probabilities_of
from mmclipdis.models.segmentation.catseg.views import CATSegTestSettings
from mmclipdis.models.segmentation.cosine_head import CosineSegHead, scaled_cosines
from mmclipdis.models.segmentation.prediction import LabelRule, best_of_each
from mmclipdis.models.segmentation.resampling import axis_matrix
from mmclipdis.models.segmentation.settings import OpenVocabTestSettings
from mmclipdis.models.segmentation.windows import Size, Windows


class CosineMaps(nn.Module):
    """Scores (n, Q, h, w) of a ``CosineSegHead`` on the patch grid; text is a table.

    Args:
        backbone: Gives a map in the joint space.
        head: The head, of which the table, the scale and the image projector are taken.

    Raises:
        ValueError: the head has ``score_norm='surgery'``.
    """

    table: Tensor

    def __init__(self, backbone: nn.Module, head: CosineSegHead) -> None:
        super().__init__()
        if head.score_norm == "surgery":
            raise ValueError(
                "score_norm='surgery' is not exported: it weights the scores of each window by its "
                "image embedding, which is not in the file; export the model without, "
                "--cfg-options model.decode_head.score_norm=None"
            )
        self.backbone = backbone
        self.in_index = head.in_index
        self.scale = head.logit_scale
        self.projector = None if head.projector is None else head.projector.image
        text = head.embeddings().float()
        if head.projector is not None:
            text = F.normalize(head.projector.text(text), dim=1)
        self.register_buffer("table", text.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Of normalised images (n, 3, H, W)."""
        features = self.backbone(images)[self.in_index]
        if self.projector is not None:
            features = self.projector(features.movedim(1, -1)).movedim(-1, 1)
        return scaled_cosines(features, self.table, self.scale)


class Classes(nn.Module):
    """From scores of queries (B, Q, H, W) to probabilities of classes (B, C, H, W)."""

    query_to_class: Tensor

    def __init__(self, rule: LabelRule) -> None:
        super().__init__()
        self.register_buffer("query_to_class", rule.query_to_class.clone())
        self.classes = rule.num_classes
        self.one_name_each = rule.one_name_each
        self.bias = rule.bias

    def forward(self, scores: Tensor) -> Tensor:
        """Softmax over the queries or sigmoid of each, then the best synonym of each class."""
        probabilities = probabilities_of(scores, self.bias, dim=1)
        if self.one_name_each:
            return probabilities
        return best_of_each(probabilities, self.query_to_class, self.classes, empty=0.0)


class WholeImage(nn.Module):
    """A training-free segmentor that looks at whole images, of any number of whole patches.

    Args:
        maps: Scores on the patch grid.
        rule: How they become classes.
        spreads: Whether the scores of each query are spread over 0..scale within the image.
    """

    def __init__(self, maps: CosineMaps, rule: LabelRule, spreads: bool = False) -> None:
        super().__init__()
        self.maps, self.classes, self.spreads = maps, Classes(rule), spreads

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (B, C, H, W) of normalised images (B, 3, H, W)."""
        scores = self.maps(image)
        if self.spreads:
            scores = self.maps.scale * _spread(scores, (2, 3))
        return self.classes(_resized(scores, image.shape[-2:]))


class FixedWindows(nn.Module):
    """A training-free segmentor for images of one size, with the windows of its ``test_cfg``.

    Args:
        maps, rule, spreads: As in :class:`WholeImage`.
        patch: (height, width) of a patch in pixels.
        settings: The model's ``test_cfg``.
        size: (height, width) of the images in pixels.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        maps: CosineMaps,
        rule: LabelRule,
        spreads: bool,
        patch: Size,
        settings: OpenVocabTestSettings,
        size: Size,
    ) -> None:
        super().__init__()
        self.maps, self.classes, self.spreads = maps, Classes(rule), spreads
        self.windows = settings.windows(size)
        self.padding = settings.padding(self.windows.crop, patch)
        left, right, top, bottom = self.padding
        spot = torch.device("cpu"), torch.float32, settings.mode == "whole"
        for name, axis, pads in (("rows", 0, (top, bottom)), ("columns", 1, (left, right))):
            starts = tuple(sorted({start[axis] for start in self.windows.starts}))
            crop = self.windows.crop[axis]
            grid = (crop + sum(pads)) // patch[axis]
            matrix = axis_matrix(starts, crop, size[axis], pads, grid, size[axis], *spot)
            self.register_buffer(name, matrix.to(maps.table))

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (B, C, H, W) of normalised images (B, 3, H, W)."""
        crops = torch.stack([image[..., y, x] for y, x in self.windows.slices()], dim=1)
        scores = self.maps(F.pad(crops.flatten(0, 1), self.padding))
        scores = scores.unflatten(0, (-1, len(self.windows)))  # (B, n, Q, gh, gw)
        if self.spreads:
            scores = self.maps.scale * _spread(scores, (1, 3, 4))
        down, right = (
            matrix.shape[1] // side
            for matrix, side in zip((self.rows, self.columns), scores.shape[-2:])
        )
        grids = scores.unflatten(1, (down, right)).permute(0, 3, 1, 4, 2, 5)
        grids = grids.flatten(4, 5).flatten(2, 3)  # (B, Q, down * gh, right * gw)
        return self.classes(self.rows @ grids @ self.columns.T)


class CATSegViews(nn.Module):
    """CAT-Seg with the views of its ``test_cfg``, for one image of any size.

    Args:
        model: A ``CATSeg`` that knows its classes.
        settings: Its ``test_cfg``.
    """

    table: Tensor
    coverage: Tensor

    def __init__(self, model: Any, settings: CATSegTestSettings) -> None:
        super().__init__()
        self.encoder, self.head = model.image_encoder, model.decode_head
        self.clip_size, self.guidance = model.clip_size, model.guidance_indices
        self.whole = settings.mode == "whole"
        self.overview = settings.mode == "slide_with_global"
        self.size: Size = self.clip_size if self.whole else settings.size
        self.windows: Windows = settings.windows(self.size)
        self.register_buffer("table", model.class_embeddings().detach().clone())
        counts = self.table.new_zeros(self.size)
        for rows, columns in self.windows.slices():
            counts[rows, columns] += 1
        self.register_buffer("coverage", counts)

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (1, T, H, W) of a normalised image (1, 3, H, W)."""
        picture = _resized(image, self.size)
        views = [picture[..., rows, columns] for rows, columns in self.windows.slices()]
        if self.overview:
            views.append(_resized(image, self.windows.crop))
        looks = _resized(torch.cat(views), self.clip_size)
        features = self.encoder.dense(looks, intermediates=self.guidance)
        logits = self.head(features, self.table)
        size: Sequence[int] = image.shape[-2:]
        if self.whole:
            return _resized(logits.sigmoid(), size)
        scores = _resized(logits, self.windows.crop).sigmoid()
        canvas = self._stitched(scores[: len(self.windows)])
        if self.overview:
            canvas = (canvas + _resized(scores[-1:], self.size)) / 2
        return _resized(canvas, size)

    def _stitched(self, scores: Tensor) -> Tensor:
        height, width = self.size
        total = torch.zeros_like(self.coverage)
        for score, (rows, columns) in zip(scores.unbind(), self.windows.slices(), strict=True):
            around = (columns.start, width - columns.stop, rows.start, height - rows.stop)
            total = total + F.pad(score, around)
        return (total / self.coverage)[None]


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _spread(scores: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Scores spread over 0..1 along axes; one that is the same everywhere becomes 0."""
    low, high = scores.amin(axes, keepdim=True), scores.amax(axes, keepdim=True)
    extent = high - low
    return (scores - low) / torch.where(extent > 0, extent, torch.ones_like(extent))
