"""OV-DQUO's head: every layer says where a thing is and how surely; CLIP says what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.layers import inverse_sigmoid
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule, bias_init_with_prob, constant_init
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import box_convert, clip_boxes_to_image

from mmclipdis.clip.text.templates import Templates
from mmclipdis.losses.objectness import (
    focal_denoising,
    paired_giou,
    paired_iou,
    varifocal_objectness,
)
from mmclipdis.models.detection.class_text import DetectorText, WithDetectorText
from mmclipdis.models.detection.nms import strongest_nms
from mmclipdis.models.detection.ovdquo.denoising import DenoisingQueries
from mmclipdis.models.detection.ovdquo.matching import Matches, checked_costs, checked_shares, match
from mmclipdis.models.detection.ovdquo.targets import Targets
from mmclipdis.utils.finite import check_scores
from mmclipdis.utils.precision import at_least_fp32
from mmclipdis.utils.unknown_boxes import UNKNOWN


@MODELS.register_module()
class OVDQUOHead(WithDetectorText, BaseModule):
    """Objectness and boxes of a DINO decoder's layers, and the text of the classes.

    The decoder's layers share one linear layer for the objectness and have a box MLP each; the
    encoder has its own two.

    Args:
        embed_dims: Channels of a query.
        text_encoder, vocabulary, templates, text_embeddings, novel_classes: see
            :class:`~mmclipdis.models.detection.class_text.DetectorText`. The last row of a file of
            embeddings is the wildcard.
        wildcard: Word for things that have no class: of queries for pseudo boxes, in training only.
        num_reg_fcs: Hidden layers of a box MLP.
        loss_weights, cost_weights: Of objectness, L1 and GIoU, in the loss and in matching.
        num_pred_layer, share_pred_layer, as_two_stage: As mmdet's detector gives them: number of
            decoder layers and one; False; True.
        train_cfg: Has to be empty.
        test_cfg: See :class:`~mmclipdis.models.detection.ovdquo.detector.OVDQUO`.

    Raises:
        ValueError: as ``DetectorText``, or options that are none.

    Source: OV-DQUO (AAAI 2025).
    """

    def __init__(
        self,
        embed_dims: int = 256,
        text_encoder: Mapping[str, Any] | nn.Module | None = None,
        vocabulary: Any = "dataset",
        templates: Templates = "vild63",
        text_embeddings: str | None = None,
        novel_classes: str | Sequence[str] = "dataset",
        wildcard: str = "object",
        num_reg_fcs: int = 2,
        loss_weights: Sequence[float] = (2.0, 5.0, 2.0),
        cost_weights: Sequence[float] = (2.0, 5.0, 2.0),
        num_pred_layer: int = 7,
        share_pred_layer: bool = False,
        as_two_stage: bool = True,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if share_pred_layer or not as_two_stage:
            raise ValueError("OVDQUOHead is that of a two-stage detector with box refinement")
        if train_cfg:
            raise ValueError(
                f"OVDQUO.train_cfg={dict(train_cfg)} is not read: the weights of loss and matching "
                "are loss_weights and cost_weights of the bbox_head; remove it"
            )
        self.embed_dims = embed_dims
        if not isinstance(num_reg_fcs, int) or num_reg_fcs < 0:
            raise ValueError(f"num_reg_fcs must be a whole number from 0 on, got {num_reg_fcs!r}")
        self.loss_weights = checked_shares("loss_weights", loss_weights)
        self.cost_weights = checked_costs(cost_weights)
        self.test_cfg: Any = test_cfg
        #: 0: the layers of the decoder; 1: the encoder.
        self.cls_branches: Any = nn.ModuleList(nn.Linear(embed_dims, 1) for _ in range(2))
        #: One a layer of the decoder, then the encoder's.
        self.reg_branches: Any = nn.ModuleList(
            _box_mlp(embed_dims, num_reg_fcs) for _ in range(num_pred_layer)
        )
        self.text = DetectorText(
            text_encoder,
            vocabulary,
            templates,
            text_embeddings,
            words=(wildcard,),
            novel_classes=novel_classes,
        )

    def init_weights(self) -> None:
        """As DINO: every query is a thing with probability 0.01, and no box is moved."""
        super().init_weights()
        for branch in self.cls_branches:
            nn.init.constant_(branch.bias, bias_init_with_prob(0.01))
        for branch in self.reg_branches:
            constant_init(branch[-1], 0, bias=0)

    def forward(
        self, hidden_states: Tensor, references: Sequence[Tensor], last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What the decoder's layers say, in float32.

        Args:
            hidden_states: (L, B, Q, dim).
            references: Per layer (B, Q, 4), the boxes it started from: (cx, cy, w, h) in 0..1.
            last: Read the last layer alone.

        Returns:
            Logits of objectness (L, B, Q) and boxes (L, B, Q, 4) as the references; L is 1 for
            ``last``.
        """
        count = len(hidden_states)
        layers = range(count - 1 if last else 0, count)
        logits = torch.stack([self.cls_branches[0](hidden_states[i])[..., 0] for i in layers])
        moves = torch.stack([self.reg_branches[i](hidden_states[i]) for i in layers])
        starts = at_least_fp32(torch.stack([references[i] for i in layers]))
        # as the decoder and denoising queries begin: mmdet's own head lets boxes be smaller
        boxes = (at_least_fp32(moves) + inverse_sigmoid(starts, eps=1e-3)).sigmoid()
        return at_least_fp32(logits), boxes

    def loss(
        self,
        predicted: tuple[Tensor, Tensor],
        encoded: tuple[Tensor, Tensor],
        targets: Targets,
        query_classes: Tensor | None,
        denoising: DenoisingQueries | None,
        metas: Sequence[Mapping[str, Any]],
    ) -> dict[str, Tensor]:
        """Losses of all layers (``d0.loss_cls``, ...), of the encoder and of denoising.

        Each layer has its own matching. How many boxes are matched is counted at the decoder's last
        layer, over all processes, and is what every loss is divided by.

        Args:
            predicted: Of :meth:`forward`, denoising queries first.
            encoded: Logits (B, Q) and boxes (B, Q, 4) of the encoder's queries.
            targets: Of the batch.
            query_classes: (B, Q): class of each query, ``targets.wildcard`` for unknown things;
                None if queries ask for no class.
            denoising: The denoising queries, if there are any.
            metas: Of the images, to name one that is at fault.
        """
        noisy = 0 if denoising is None else denoising.content.shape[1]
        logits, boxes = predicted[0][..., noisy:], predicted[1][..., noisy:, :]
        found = match(
            logits,
            boxes,
            targets.pairs,
            query_classes,
            targets.wildcard,
            self.cost_weights,
            metas,
        )
        free = match(*encoded, targets.pairs, None, None, self.cost_weights, metas)
        unknown = torch.cat(targets.labels) == UNKNOWN
        flat = (torch.cat(targets.boxes), torch.cat(targets.weights), unknown)
        last = len(logits) - 1
        counted = found.target[found.layer == last]
        counts = torch.stack([(~unknown[counted]).sum(), unknown[counted].sum()]).float()
        real, pseudo = reduce_mean(counts).unbind()
        divisors = (real + pseudo).clamp(min=1), real.clamp(min=1)
        losses = self._losses(encoded[0][None], encoded[1][None], free, flat, divisors, 0)
        named = {f"enc_{name}": value for name, value in losses.items()}
        for layer in range(last + 1):
            losses = self._losses(logits, boxes, found, flat, divisors, layer)
            if denoising is not None:
                losses["dn_loss_cls"] = self._denoising_loss(
                    predicted[0][layer, :, :noisy], denoising, divisors[1]
                )
            before = "" if layer == last else f"d{layer}."
            named |= {f"{before}{name}": value for name, value in losses.items()}
        return named

    def _losses(
        self,
        logits: Tensor,
        boxes: Tensor,
        matches: Matches,
        targets: tuple[Tensor, Tensor, Tensor],
        divisors: tuple[Tensor, Tensor],
        layer: int,
    ) -> dict[str, Tensor]:
        """Losses of a layer: objectness of all queries, boxes of real matches alone."""
        logits, boxes = logits[layer], boxes[layer]
        given, weights, pseudo = targets
        here = matches.layer == layer
        place, target = (matches.batch[here], matches.query[here]), matches.target[here]
        mine, theirs = boxes[place], given[target]
        corners = [box_convert(each, "cxcywh", "xyxy") for each in (mine, theirs)]
        positive = torch.zeros_like(logits, dtype=torch.bool)
        positive[place] = True
        iou, weight = torch.zeros_like(logits), torch.ones_like(logits)
        iou[place] = paired_iou(*corners).detach()
        weight[place] = weights[target].to(weight)
        objectness = varifocal_objectness(logits, iou, positive, weight).sum()
        real = ~pseudo[target]
        distance = (mine - theirs)[real].abs().sum()
        overlap = (1 - paired_giou(*corners)[real]).sum()
        share = self.loss_weights
        return {
            "loss_cls": share.objectness * objectness / divisors[0],
            "loss_bbox": share.l1 * distance / divisors[1],
            "loss_iou": share.giou * overlap / divisors[1],
        }

    def _denoising_loss(self, logits: Tensor, denoising: DenoisingQueries, count: Tensor) -> Tensor:
        """Of one layer's denoising queries, objectness alone."""
        each = focal_denoising(logits, denoising.positive, denoising.weight)
        total = torch.where(denoising.valid, each, 0.0).sum()
        return self.loss_weights.objectness * total / (count * denoising.groups)

    def detections(
        self, boxes: Tensor, scores: Tensor, meta: Mapping[str, Any], rescale: bool
    ) -> InstanceData:
        """Detections of an image: the strongest pairs of box and class that NMS leaves.

        Args:
            boxes: (Q, 4): (cx, cy, w, h) in 0..1.
            scores: (Q, K + 1); the last column is no class.
            meta: With ``img_shape`` and, to rescale, ``scale_factor``.
            rescale: Give boxes in pixels of the original image.

        Raises:
            ValueError: scores or boxes are not finite; names the image.
        """
        check_scores(scores, meta)
        check_scores(boxes, meta, "boxes")
        height, width = meta["img_shape"][:2]
        corners = box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([width, height] * 2)
        corners = clip_boxes_to_image(corners, (height, width))
        if rescale:
            corners = corners / corners.new_tensor(meta["scale_factor"]).repeat(2)
        cfg = self.test_cfg
        found, labels = strongest_nms(corners, scores, cfg.score_thr, cfg.nms, cfg.max_per_img)
        return InstanceData(bboxes=found[:, :-1], scores=found[:, -1], labels=labels)


def _box_mlp(width: int, hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(hidden):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 4))
