"""OV-DQUO as a program: see :mod:`mmclipdis.export.detectors`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torchvision.ops import box_convert, clip_boxes_to_image

from mmclipdis.export.changing import changed
from mmclipdis.export.detectors import APART, Size, samples_of, without_text_tower
from mmclipdis.models.detection.ovdquo.queries import class_scores, cosines, rois_of


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
        return bool((-logits.diff() > APART).all())


def corners_of(boxes: Tensor, sides: Tensor, size: Size) -> Tensor:
    """Boxes (n, 4), (cx, cy, w, h) in 0..1, as x0, y0, x1, y1 in pixels, inside the image."""
    corners: Tensor = clip_boxes_to_image(box_convert(boxes, "cxcywh", "xyxy") * sides, size)
    return corners


@contextmanager
def levels_of_known_size(model: Any) -> Iterator[None]:
    """Inside the block the sizes of a ``DINO``'s levels are numbers, and there is no text tower.

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
