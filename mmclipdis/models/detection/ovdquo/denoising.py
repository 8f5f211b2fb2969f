"""Queries that are noisy boxes of unknown objects: they teach what an object is, and what is not.

Source: OV-DQUO (AAAI 2025), after DINO (ICLR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.models.layers import CdnQueryGenerator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmclipdis.models.detection.ovdquo.options import check_denoising
from mmclipdis.utils.unknown_boxes import UNKNOWN


@dataclass(frozen=True)
class DenoisingQueries:
    """Queries that go before the matching ones, and what their loss needs.

    N = 2 * groups * most sources of an image: each group has a positive copy of every source, then
    a negative one. What pads images with fewer sources is 0 everywhere, and not ``valid``.

    Attributes:
        content: ``(B, N, dim)``.
        references: ``(B, N, 4)``: cx, cy, w, h as shares of the image, through the inverse sigmoid.
        mask: ``(N + matching, N + matching)``, true where a row must not see a column: a group
            another group, the matching queries any group.
        positive: ``(B, N)``, whether the query is foreground.
        valid: ``(B, N)``, false for padding.
        weight: ``(B, N)``, that of the source, in both of its copies.
        groups: Number of groups.
    """

    content: Tensor
    references: Tensor
    mask: Tensor
    positive: Tensor
    valid: Tensor
    weight: Tensor
    groups: int


class TextDenoising(CdnQueryGenerator):
    """Contrastive denoising with the texts of classes, from the pseudo boxes of a batch.

    Content of a query with the noisy label n: E[n] + t[wildcard] for a positive one, E[n] + t[n]
    for a negative one; E is a learned table, t the projected text embeddings. Noise of boxes and
    the mask are mmdet's. Random numbers come from torch's global generator.

    Args:
        embed_dims: Size of a query.
        num_matching_queries: Queries that follow.
        max_classes: M, most classes of an iteration. The table has M + 1 rows; the last one is the
            wildcard's, however many classes are there.
        num_queries: Half as many as there are at most: groups = num_queries // most sources of an
            image, and at least one. Below 50 there are always 2 * num_queries groups, as in the
            reference code.
        label_noise: Probability that the label is replaced by any class or the wildcard.
        box_noise_scale: A corner of a positive copy moves by up to half the size of its box times
            this, one of a negative copy by once to twice as much.

    Raises:
        ValueError: An option outside its range.
    """

    def __init__(
        self,
        embed_dims: int,
        num_matching_queries: int,
        max_classes: int,
        num_queries: int = 100,
        label_noise: float = 0.25,
        box_noise_scale: float = 1.0,
    ) -> None:
        check_denoising(num_queries, label_noise, box_noise_scale)
        super().__init__(
            num_classes=max_classes + 1,
            embed_dims=embed_dims,
            num_matching_queries=num_matching_queries,
            label_noise_scale=2 * label_noise,  # mmdet halves it
            box_noise_scale=box_noise_scale,
            group_cfg=dict(dynamic=True, num_dn_queries=num_queries),
        )
        self.max_classes = max_classes
        self.label_noise = label_noise

    def __call__(
        self,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        weights: Sequence[Tensor] | None,
        text: Tensor,
    ) -> DenoisingQueries | None:
        """Make the queries of a batch.

        The sources are the pseudo boxes. If there are none in the whole batch, it is the first
        annotated box, alone.

        Args:
            boxes: ``(n, 4)`` of each image: x0, y0, x1, y1 as shares of the image. A size of zero
                is fine.
            labels: ``(n,)`` of each image: rows of ``text``; the last row, or -1, for a pseudo box.
            weights: ``(n,)`` of each image, in [0, 1]; None is 1.
            text: ``(M' + 1, dim)``: projected text embeddings of the M' <= M classes of this
                iteration, the wildcard's last.

        Returns:
            The queries; None if the batch has no box at all. Then add :meth:`zero` to what the loss
            is computed from: every process of a distributed run has to use the table.

        Raises:
            ValueError: More texts than rows of the table, or a label without a text.
        """
        if not 1 < len(text) <= self.num_classes:
            raise ValueError(
                f"{len(text)} texts, with the wildcard, for a table of {self.num_classes} labels: "
                f"give 1 to max_classes={self.num_classes - 1} classes an iteration"
            )
        wildcard = len(text) - 1
        chosen = _sources(labels, wildcard)
        most = max(map(len, chosen), default=0)
        if most == 0:
            return None
        groups = self.get_num_groups(most)
        if weights is None:
            weights = [torch.ones_like(each[:, 0]) for each in boxes]
        source = _padded(labels, chosen)
        source = torch.where(source == UNKNOWN, wildcard, source)
        valid = _padded([torch.ones_like(each, dtype=torch.bool) for each in labels], chosen)
        noisy = self._noisy_labels(source.repeat(1, 2 * groups), wildcard)
        valid = valid.repeat(1, 2 * groups)
        # copies of a group: the positive ones, then the negative ones
        near = torch.arange(valid.shape[1], device=valid.device) // most % 2 == 0
        positive = near & valid
        rows = torch.where(noisy == wildcard, self.num_classes - 1, noisy)
        content = self.label_embedding(rows) + torch.where(
            positive[..., None], text[wildcard], text[noisy]
        )
        references = self._references(_padded(boxes, chosen), groups)
        return DenoisingQueries(
            content=torch.where(valid[..., None], content, 0.0),
            references=torch.where(valid[..., None], references, 0.0),
            mask=self.generate_dn_mask(most, groups, device=text.device),
            positive=positive,
            valid=valid,
            weight=_padded(weights, chosen).repeat(1, 2 * groups),
            groups=groups,
        )

    def get_num_groups(self, max_num_target: int | None = None) -> int:
        """Groups for so many sources in an image.

        Other than in mmdet, a small number of queries is a number of groups.
        """
        if 2 * self.num_dn_queries < 100:
            return 2 * self.num_dn_queries
        return super().get_num_groups(max_num_target)

    def zero(self) -> Tensor:
        """0, with a gradient of zeros for the table."""
        return self.label_embedding.weight[0, 0] * 0.0

    def _noisy_labels(self, labels: Tensor, wildcard: int) -> Tensor:
        replaced = torch.rand(labels.shape, device=labels.device) < self.label_noise
        return torch.where(replaced, torch.randint_like(labels, wildcard + 1), labels)

    def _references(self, boxes: Tensor, groups: int) -> Tensor:
        """Noisy boxes (B, N, 4) of the sources (B, most, 4)."""
        noisy = self.generate_dn_bbox_query(boxes.flatten(0, 1), groups)  # copies, then images
        return noisy.view(2 * groups, *boxes.shape).transpose(0, 1).flatten(1, 2)


def _padded(values: Sequence[Tensor], chosen: Sequence[Tensor]) -> Tensor:
    """(B, most, ...): the chosen rows of each image, then zeros."""
    rows = [value[where] for value, where in zip(values, chosen)]
    return pad_sequence(rows, batch_first=True)


def _sources(labels: Sequence[Tensor], wildcard: int) -> list[Tensor]:
    """Numbers of the boxes of each image that queries are made from."""
    pseudo = [((each == UNKNOWN) | (each == wildcard)).nonzero()[:, 0] for each in labels]
    if any(map(len, pseudo)):
        return pseudo
    first = next((image for image, each in enumerate(labels) if len(each)), None)
    if first is None:
        return pseudo
    label = int(labels[first][0])
    if not 0 <= label < wildcard:
        raise ValueError(f"label {label} of a box, for {wildcard} classes of the iteration")
    return [each[:0] if image != first else each.new_zeros(1) for image, each in enumerate(pseudo)]
