"""The region proposal network of F-ViT: mmdet's with norms, and with proposals made in fp32."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RPNHead
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmclipdis.utils.finite import check_scores


@MODELS.register_module()
class FViTRPNHead(RPNHead):
    """An ``RPNHead`` whose shared convolutions can have a norm; boxes and scores are fp32.

    In half precision many scores are equal after the sigmoid and anchors far from the origin are
    rounded to whole pixels or more: which proposals stay after NMS would be chance.

    Args:
        norm_cfg: Of the shared convolutions: F-ViT has ``SyncBN`` on OV-LVIS and None on OV-COCO.
            With None the layers are those of ``RPNHead``.
        **kwargs: As in ``RPNHead``.

    Source: F-ViT (CLIPSelf, ICLR 2024).
    """

    def __init__(
        self, *args: Any, norm_cfg: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        self.norm_cfg = norm_cfg  # first: the stock constructor makes the layers
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.norm_cfg is None:
            return
        widths = [self.in_channels, *[self.feat_channels] * self.num_convs]
        self.rpn_conv = nn.Sequential(
            *(
                ConvModule(before, after, 3, padding=1, norm_cfg=self.norm_cfg, inplace=False)
                for before, after in pairwise(widths)
            )
        )

    def predict_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], *args: Any, **kwargs: Any
    ) -> list[InstanceData]:
        """Proposals of every image; logits (N, A, H, W) and deltas (N, 4 A, H, W) of every level.

        Stock code makes the anchors in the type of the logits too, and leaves out what is NaN.

        Raises:
            ValueError: a logit or delta is not finite; names the image.
        """
        scores = [level.float() for level in cls_scores]
        deltas = [level.float() for level in bbox_preds]
        for number, meta in enumerate(kwargs.get("batch_img_metas") or ()):
            parts = [level[number].flatten() for level in (*scores, *deltas)]
            check_scores(torch.cat(parts), meta, "proposals")
        return super().predict_by_feat(scores, deltas, *args, **kwargs)
