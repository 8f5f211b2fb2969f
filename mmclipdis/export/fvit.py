"""F-ViT as a program: see :mod:`mmclipdis.export.detectors`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import roi_align

from mmclipdis.export.changing import changed
from mmclipdis.export.detectors import APART, Size, samples_of


class ScoredProposals(nn.Module):
    """F-ViT on one image: a box and scores for every proposal of its RPN before NMS.

    Args:
        model: An ``FViT`` that knows its classes.
        size: (height, width) of the image in pixels.
    """

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__()
        self.model, self.size = model, size
        self.most = model.rpn_head.test_cfg.get("nms_pre", -1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of a normalised image (1, 3, H, W): boxes (N, 4), scores (N, K), and what they come from,
        proposals (N, 4) and their objectness (N,). Boxes are x0, y0, x1, y1 in pixels.
        """
        model, head = self.model, self.model.roi_head
        levels, dense = model._extract(image)
        proposals, objectness = self._proposals(levels)
        rois = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], dim=1)
        pooled = pooled_levels(head.bbox_roi_extractor, levels, rois)
        if head.with_shared_head:
            pooled = head.shared_head(pooled)
        logits, moves = head.bbox_head(pooled)
        scores = head.scores(logits, head.regions(rois, dense, model.backbone.patch_size))
        if power := head.test_cfg.get("objectness", 0):
            scores = scores * objectness[:, None] ** power
        boxes = head.bbox_head.bbox_coder.decode(proposals, moves, max_shape=self.size)
        return boxes, scores[:, :-1], proposals, objectness

    def _proposals(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        head = self.model.rpn_head
        logits, moves = head(levels)
        sizes = [level.shape[-2:] for level in logits]
        anchors = head.prior_generator.grid_priors(sizes, device=logits[0].device)
        most = self.most
        boxes, scores = [], []
        for level, move, anchor in zip(logits, moves, anchors):
            found = things(level[0], head.use_sigmoid_cls)
            move = move[0].permute(1, 2, 0).reshape(-1, 4)
            if 0 < most < found.shape[0]:
                kept = strongest(found, most)
                found, move, anchor = found[kept], move[kept], anchor[kept]
            boxes.append(head.bbox_coder.decode(anchor, move, max_shape=self.size))
            scores.append(found)
        return torch.cat(boxes), torch.cat(scores)

    def reference(self, image: Tensor) -> tuple[Tensor, ...]:
        """The same by mmdet's own RPN head, and the model's own head for its boxes."""
        model = self.model
        levels, dense = model._extract(image)
        proposals, objectness = raw_proposals(model, levels, self.size)
        (found,) = model.roi_head.predict_bbox(
            (*levels, (dense, model.backbone.patch_size)),
            [samples_of(self.size)[0].metainfo],
            [InstanceData(bboxes=proposals, scores=objectness)],
            None,
        )
        return found.bboxes, found.scores[:, :-1], proposals, objectness

    def counts(self) -> list[int]:
        """How many proposals each level of the RPN has."""
        place = self.model.rpn_head.rpn_cls.weight
        levels = self.model._extract(place.new_zeros(1, 3, *self.size))[0]
        found = [level[0].numel() for level in self.model.rpn_head(levels)[0]]
        if not self.model.rpn_head.use_sigmoid_cls:
            found = [count // 2 for count in found]
        return [min(count, self.most) if self.most > 0 else count for count in found]

    def settled(self, image: Tensor) -> bool:
        """Whether the last proposal of each level is far enough from the next one."""
        head, most = self.model.rpn_head, self.most
        for level in head(self.model._extract(image)[0])[0]:
            scores = things(level[0], head.use_sigmoid_cls)
            if 0 < most < len(scores):
                last, after = scores.topk(most + 1).values[-2:]
                if last - after <= APART * last:
                    return False
        return True


def things(logits: Tensor, sigmoid: bool) -> Tensor:
    """Objectness (n,) of an RPN's logits (A, h, w) or (2 A, h, w) of a level."""
    rows = logits.permute(1, 2, 0)
    if sigmoid:
        return rows.reshape(-1).sigmoid()
    return rows.reshape(-1, 2).softmax(-1)[:, 0]


def strongest(scores: Tensor, count: int) -> Tensor:
    """Where the highest scores (n,) are, in the order of the places.

    Their rank is nobody's business: scores that differ by rounding would change places.
    """
    return scores.topk(count).indices.sort().values


def pooled_levels(extractor: Any, levels: Sequence[Tensor], rois: Tensor) -> Tensor:
    """What mmdet's ``SingleRoIExtractor`` pools, with every RoI read from all levels.

    How many belong to a level depends on the photo.
    """
    layers = extractor.roi_layers
    which = extractor.map_roi_levels(rois, len(layers))
    pooled = [
        roi_align(
            level.float(),
            rois,
            layer.output_size,
            layer.spatial_scale,
            max(layer.sampling_ratio, 0),
            layer.aligned,
        )
        for level, layer in zip(levels, layers)
    ]
    found = pooled[0]
    for number, maps in enumerate(pooled[1:], 1):
        found = torch.where((which == number)[:, None, None, None], maps, found)
    return found


def raw_proposals(model: Any, levels: Sequence[Tensor], size: Size) -> tuple[Tensor, Tensor]:
    """Proposals (N, 4) and objectness (N,) that mmdet's own ``RPNHead`` has before NMS.

    In the order of :class:`ScoredProposals`: of the places in each level.
    """
    head = model.rpn_head
    logits, moves = head(levels)
    with changed(head, _bbox_post_process=lambda results, **_: results):
        (found,) = RPNHead.predict_by_feat(
            head, logits, moves, batch_img_metas=[samples_of(size)[0].metainfo]
        )
    order, start, most = [], 0, head.test_cfg.get("nms_pre", -1)
    for level in logits:
        scores = things(level[0], head.use_sigmoid_cls)
        if 0 < most < len(scores):
            ranks = scores.sort(descending=True).indices[:most].argsort()
        else:
            ranks = torch.arange(len(scores), device=scores.device)
        order.append(ranks + start)
        start += len(ranks)
    kept = torch.cat(order)
    return found.bboxes[kept], found.scores[kept]
