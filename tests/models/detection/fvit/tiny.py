"""A small F-ViT: a pyramid of convolutions for a backbone, and words with constant embeddings."""

from __future__ import annotations

import zlib
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.engine.random_weights import take_as_meant

DIM, WIDTH, PATCH, SIZE = 8, 8, 8, 64
CLASSES = ("cat", "dog", "cow", "bus")
NOVEL = ("dog", "bus")


@MODELS.register_module()
class TinyFViTWords(BaseModule):
    """Every name has an embedding of its own."""

    embed_dim = DIM

    def embed(self, vocabulary: Vocabulary) -> Tensor:
        rows = []
        for name in vocabulary.queries:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            rows.append(torch.randn(DIM, generator=generator))
        return F.normalize(torch.stack(rows), dim=1)


@MODELS.register_module()
class TinyFViTBackbone(BaseModule):
    """A frozen patch embedding, and a trained convolution for each of the four levels."""

    patch_size = PATCH

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Conv2d(3, DIM, PATCH, PATCH).requires_grad_(False)
        self.levels = nn.ModuleList(nn.Conv2d(DIM, WIDTH, 1) for _ in range(4))

    def forward(self, images: Tensor) -> tuple[Tensor | None, ...]:
        tokens = self.tower(images).detach()
        maps = [
            F.interpolate(level(tokens), scale_factor=factor)
            for level, factor in zip(self.levels, (4, 2, 1, 0.5))
        ]
        return (*maps, None if self.training else F.normalize(tokens.float(), dim=1))


def bbox_head(**options: Any) -> dict[str, Any]:
    defaults = dict(
        type="FViTBBoxHead",
        text_encoder=dict(type="TinyFViTWords"),
        in_channels=16,
        fc_out_channels=DIM,
        conv_out_channels=16,
        num_shared_convs=1,
        norm_cfg=dict(type="BN"),
        bbox_coder=dict(
            type="DeltaXYWHBBoxCoder",
            target_means=[0.0] * 4,
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
        loss_cls=dict(type="NovelMaskedCrossEntropyLoss", bg_weight=0.6),
        loss_bbox=dict(type="L1Loss"),
    )
    return {**defaults, **options}


def rpn_head() -> dict[str, Any]:
    return dict(
        type="RPNHead",
        in_channels=16,
        feat_channels=16,
        num_convs=2,
        anchor_generator=dict(
            type="AnchorGenerator",
            scales=[8],
            ratios=[0.5, 1.0, 2.0],
            strides=[PATCH // 4, PATCH // 2, PATCH, 2 * PATCH, 4 * PATCH],
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True),
        loss_bbox=dict(type="L1Loss"),
    )


def assigner(pos: float, neg: float, low: bool) -> dict[str, Any]:
    return dict(
        type="MaxIoUAssigner",
        pos_iou_thr=pos,
        neg_iou_thr=neg,
        min_pos_iou=neg,
        match_low_quality=low,
        ignore_iof_thr=-1,
    )


def sampler(num: int, fraction: float, add: bool) -> dict[str, Any]:
    return dict(
        type="RandomSampler", num=num, pos_fraction=fraction, neg_pos_ub=-1, add_gt_as_proposals=add
    )


def config(
    head: dict[str, Any] | None = None,
    backbone: dict[str, Any] | None = None,
    width: int = WIDTH,
    **rcnn: Any,
) -> ConfigDict:
    """``rcnn`` overrides the test options of the RoI head."""
    proposals = dict(
        nms_pre=100, max_per_img=20, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
    )
    test = dict(alpha=0.1, beta=0.8, vlm_temperature=75.0, score_thr=0.0, max_per_img=10)
    test["nms"] = dict(type="nms", iou_threshold=0.4)
    extractor = dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
        out_channels=16,
        featmap_strides=[PATCH // 4, PATCH // 2, PATCH, 2 * PATCH],
    )
    return ConfigDict(
        type="mmdet.FViT",
        data_preprocessor=dict(type="mmdet.DetDataPreprocessor", pad_size_divisor=SIZE),
        backbone=backbone or dict(type="TinyFViTBackbone"),
        neck=dict(type="FPN", in_channels=[width] * 4, out_channels=16, num_outs=5),
        rpn_head=rpn_head(),
        roi_head=dict(
            type="FViTRoIHead", bbox_roi_extractor=extractor, bbox_head=head or bbox_head()
        ),
        train_cfg=dict(
            rpn=dict(
                assigner=assigner(0.7, 0.3, True),
                sampler=sampler(32, 0.5, False),
                allowed_border=-1,
                pos_weight=-1,
                debug=False,
            ),
            rpn_proposal=proposals,
            rcnn=dict(
                assigner=assigner(0.5, 0.5, False),
                sampler=sampler(32, 0.25, True),
                pos_weight=-1,
                debug=False,
            ),
        ),
        test_cfg=dict(rpn=proposals, rcnn={**test, **rcnn}),
    )


def build(cfg: ConfigDict | None = None, seed: int = 0, told: bool = True) -> Any:
    """The detector, with classes and flags of :data:`CLASSES` unless nobody has told it any."""
    torch.manual_seed(seed)
    model = MODELS.build(cfg or config())
    model.init_weights()
    take_as_meant(model)
    if told:
        model.set_vocabulary(CLASSES, NOVEL)
    return model


def batch(model: Any, training: bool, labels: list[list[int]] | None = None) -> dict[str, Any]:
    """Two images of 64 px with boxes of base classes, or with the labels given."""
    torch.manual_seed(0)
    data = demo_mm_inputs(2, [[3, SIZE, SIZE]] * 2, num_classes=4)
    for number, sample in enumerate(data["data_samples"]):
        own = [0, 2] if labels is None else labels[number]
        corner = torch.rand(len(own), 2) * 24
        side = 16 + torch.rand(len(own), 2) * 20
        sample.gt_instances = type(sample.gt_instances)(
            bboxes=torch.cat([corner, corner + side], 1), labels=torch.tensor(own).long()
        )
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    return model.data_preprocessor(data, training)


def detections(sample: DetDataSample) -> tuple[Tensor, Tensor, Tensor]:
    found = sample.pred_instances
    return found.bboxes, found.scores, found.labels
