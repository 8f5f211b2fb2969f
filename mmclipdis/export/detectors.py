"""Detectors as programs: from a normalised image of one size to boxes before NMS, and their scores.

What is left to whoever runs the file is non-maximum suppression, whose number of boxes depends on
the photo. All else has fixed shapes at one size of the image, which fills the input: nothing is
padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from mmdet.models.dense_heads import RPNHead
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import box_convert, clip_boxes_to_image, roi_align

from mmclipdis.export.changing import changed
from mmclipdis.models.detection.ovdquo.queries import class_scores, cosines, rois_of

Size = tuple[int, int]
NMS_LEFT_OUT = "the file gives boxes before NMS, which is left to its user: see docs/export.md"
NO_PADDING = "the photo fills the image: it is resized to its size, and nothing is padded"
#: Scores that differ by less, relative to themselves, may change places by rounding.
_APART = 1e-5


def samples_of(size: Size) -> list[Any]:
    """The one sample of a photo that fills the input, (height, width) in pixels."""
    shape = {"img_shape": size, "batch_input_shape": size, "scale_factor": (1.0, 1.0)}
    return [DetDataSample(metainfo=shape)]


class SearchedQueries(nn.Module):
    """OV-DQUO on one image: the box of each query, and its scores.

    Args:
        model: An ``OVDQUO`` that knows its classes.
        size: (height, width) of the image in pixels.
    """

    sides: Tensor
    table: Tensor

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__()
        self.model, self.size = model, size
        table = model.class_text.text.embeddings()[:-1]
        self.register_buffer("table", table.detach().clone())
        self.register_buffer("sides", table.new_tensor([[*size[::-1]] * 2]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (Q, 4) in pixels and scores (Q, K) of a normalised image (1, 3, H, W)."""
        model = self.model
        levels, maps = model._extract(image)
        hidden, references = model._look(
            model._encode(levels, samples_of(self.size)), maps, self.sides
        )
        (logits,), (boxes,) = model.bbox_head(hidden, references, last=True)
        regions = model.backbone.score_embeddings(maps, rois_of(boxes, self.sides))
        temperature = model.test_cfg.temperature
        scores = class_scores(cosines(regions, self.table), temperature, logits.sigmoid().flatten())
        return corners_of(boxes[0], self.sides[0], self.size), scores[:, :-1]

    def reference(self, image: Tensor) -> tuple[Tensor, ...]:
        """The same by the model's own search."""
        model = self.model
        levels, maps = model._extract(image)
        encoded = model._encode(levels, samples_of(self.size))
        cfg = ConfigDict({**model.test_cfg, "score_thr": -1.0})  # scores of all queries
        with changed(model, test_cfg=cfg):
            boxes, scores = model._search(encoded, maps, self.sides)
        return corners_of(boxes[0], self.sides[0], self.size), scores[0, :, :-1]

    def settled(self, image: Tensor) -> bool:
        """Whether the strongest places of the encoder are far enough apart."""
        levels, _ = self.model._extract(image)
        logits = self.model._encode(levels, samples_of(self.size)).logits[0]
        return bool((-logits.diff() > _APART).all())


def corners_of(boxes: Tensor, sides: Tensor, size: Size) -> Tensor:
    """Boxes (n, 4), (cx, cy, w, h) in 0..1, as x0, y0, x1, y1 in pixels, inside the image."""
    corners: Tensor = clip_boxes_to_image(box_convert(boxes, "cxcywh", "xyxy") * sides, size)
    return corners


@contextmanager
def without_text_tower(model: Any) -> Iterator[None]:
    """Inside the block a detector has its table of embeddings, and nothing to make others with."""
    text = model.class_text.text
    text.embeddings()
    encoder, text.encoder = text.encoder, None
    try:
        yield
    finally:
        text.encoder = encoder


@contextmanager
def levels_of_known_size(model: Any) -> Iterator[None]:
    """As :func:`without_text_tower`, and the sizes of a ``DINO``'s levels are numbers.

    mmdet has them in a tensor, whose values a capture does not know.
    """

    def pre_transformer(levels: Sequence[Tensor], samples: Any) -> tuple[Any, Any]:
        places = [model.positional_encoding(None, input=level) for level in levels]
        of_levels = zip(places, model.level_embed)
        facts = {
            "spatial_shapes": [tuple(level.shape[-2:]) for level in levels],
            "level_start_index": None,
            "valid_ratios": levels[0].new_ones(1, len(levels), 2),
        }
        given = {
            "feat": torch.cat([level.flatten(2).mT for level in levels], dim=1),
            "feat_pos": torch.cat([place.flatten(2).mT + row for place, row in of_levels], dim=1),
            "feat_mask": None,
        }
        return {**given, **facts}, {"memory_mask": None, **facts}

    with ExitStack() as stack:
        stack.enter_context(without_text_tower(model))
        stack.enter_context(changed(model, pre_transformer=pre_transformer))
        for part in model.modules():
            if isinstance(part, MultiScaleDeformableAttention):
                stack.enter_context(changed(part, forward=_attention(part)))
        yield


def _attention(part: Any) -> Callable[..., Tensor]:
    """mmcv's ``MultiScaleDeformableAttention.forward``, for ``batch_first`` and without masks."""

    def forward(
        query: Tensor,
        value: Tensor | None = None,
        query_pos: Tensor | None = None,
        reference_points: Any = None,
        spatial_shapes: Any = None,
        **_: Any,
    ) -> Tensor:
        value, identity = query if value is None else value, query
        query = query if query_pos is None else query + query_pos
        count, heads = query.shape[1], (part.num_heads, part.num_levels, part.num_points)
        values = part.value_proj(value).unflatten(-1, (part.num_heads, -1))
        moves = part.sampling_offsets(query).view(1, count, *heads, 2)
        weights = part.attention_weights(query).view(1, count, heads[0], -1).softmax(-1)
        references = reference_points[:, :, None, :, None, :]
        if references.shape[-1] == 2:
            sides = moves.new_tensor([(width, height) for height, width in spatial_shapes])
            places = references + moves / sides[:, None]
        else:
            places = references[..., :2] + moves / part.num_points * references[..., 2:] * 0.5
        found = multi_scale_deformable_attn_pytorch(
            values, spatial_shapes, places, weights.view(1, count, *heads)
        )
        output: Tensor = part.output_proj(found) + identity
        return output

    return forward


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
                if last - after <= _APART * last:
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
