"""F-ViT's RoI head: stock training; in testing CLIP has a say about every proposal."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from mmclipdis.models.detection.fvit.fusion import fuse_scores
from mmclipdis.models.detection.regions import region_embeddings
from mmclipdis.utils.precision import at_least_fp32

SCORES = ("fused", "vlm", "detector")
OPTIONS = ("score", "alpha", "beta", "vlm_temperature", "detect_temperature", "objectness")


@MODELS.register_module()
class FViTRoIHead(StandardRoIHead):
    r"""A ``StandardRoIHead`` with an ``FViTBBoxHead``; its scores are those of the proposals,
    its boxes the regressed ones. A mask head works as in mmdet.

    Options of ``test_cfg.rcnn``, beside mmdet's:

    - ``score``: ``'fused'`` (default), ``'vlm'`` for CLIP alone, ``'detector'`` without CLIP.
    - ``alpha``, ``beta``: weight of CLIP for base classes and for novel ones, for ``'fused'``.
    - ``vlm_temperature``: of the softmax over CLIP's cosines; for ``'fused'`` and ``'vlm'``.
    - ``detect_temperature``: in place of the learned one (transfer to other data sets: 50).
    - ``objectness``: every score is multiplied by the RPN's of its proposal to this power; 0
      (default) as in F-ViT. CLIP names a part of a thing as surely as the whole, and neither score
      of F-ViT was taught to tell them apart for novel classes (after CenterNet2, Zhou et al. 2021).

    Args:
        **kwargs: As in ``StandardRoIHead``.

    Raises:
        ValueError: an unknown ``score``, or an option that it needs is missing.

    Source: F-ViT (CLIPSelf, ICLR 2024).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.test_cfg:
            check_test_cfg(self.test_cfg)
            self.bbox_head.test_temperature = self.test_cfg.get("detect_temperature")

    def predict(
        self,
        x: Sequence[Tensor],
        rpn_results_list: list[InstanceData],
        batch_data_samples: list[Any],
        rescale: bool = False,
        vlm_map: Tensor | None = None,
        vlm_stride: float = 16,
    ) -> list[InstanceData]:
        """Detections.

        Args:
            x: Levels of the neck.
            rpn_results_list: Proposals of every image, pixels of the input.
            batch_data_samples: One an image.
            rescale: Give boxes in pixels of the original image.
            vlm_map: (B, D, h, w) in CLIP's joint space; not needed for ``score='detector'``.
            vlm_stride: Pixels a cell of it.

        Raises:
            RuntimeError: there is no map.
        """
        # Stock code hands x on as it is and reads the first levels: the map travels behind them.
        return super().predict(
            (*x, (vlm_map, vlm_stride)), rpn_results_list, batch_data_samples, rescale=rescale
        )

    def predict_bbox(
        self,
        x: Sequence[Any],
        batch_img_metas: list[dict[str, Any]],
        rpn_results_list: list[InstanceData],
        rcnn_test_cfg: Any,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Boxes, scores and labels of every image; ``x`` as :meth:`predict` hands it on."""
        *levels, (vlm_map, vlm_stride) = x
        proposals = [result.bboxes for result in rpn_results_list]
        rois = bbox2roi(proposals)
        if len(rois) == 0:
            return super().predict_bbox(
                levels, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale
            )
        found = self._bbox_forward(tuple(levels), rois)
        scores = self.scores(found["cls_score"], self.regions(rois, vlm_map, vlm_stride))
        power = self.test_cfg.get("objectness", 0)
        if power:
            scores = scores * objectness_of(rpn_results_list).to(scores)[:, None] ** power
        counts = [len(boxes) for boxes in proposals]
        return self.bbox_head.predict_by_feat(
            rois=rois.split(counts),
            cls_scores=scores.split(counts),
            bbox_preds=found["bbox_pred"].split(counts),
            batch_img_metas=batch_img_metas,
            rcnn_test_cfg=rcnn_test_cfg,
            rescale=rescale,
        )

    def regions(self, rois: Tensor, vlm_map: Tensor | None, vlm_stride: float) -> Tensor | None:
        """CLIP's embeddings (n, D) of proposals (n, 5); None if the scores need none."""
        score = self.test_cfg.get("score", "fused")
        if score == "detector":
            return None
        if vlm_map is None:
            raise RuntimeError(
                f"score={score!r} needs CLIP's dense map, which the backbone makes in evaluation: "
                "call model.eval(), or set score='detector'"
            )
        # Cells are of unit length already if the backbone's normalize='before' says so.
        return region_embeddings(vlm_map, rois, vlm_stride, normalize="after")

    def scores(self, logits: Tensor, regions: Tensor | None) -> Tensor:
        """Scores (n, K + 1) of proposals, from the box head's logits and :meth:`regions`."""
        cfg = self.test_cfg
        if regions is not None:
            p_vlm = self.bbox_head.compare(regions, cfg.vlm_temperature).softmax(dim=1)
            if cfg.get("score", "fused") == "vlm":
                return p_vlm
        p_det = logits.softmax(dim=1)
        if regions is None:
            return p_det
        return fuse_scores(p_det, p_vlm, self._novel(p_det), cfg.alpha, cfg.beta)

    def _novel(self, scores: Tensor) -> Tensor:
        """Flags (K,); any will do where base and novel classes are treated alike."""
        alike = self.test_cfg.alpha == self.test_cfg.beta
        novel = (False,) * (scores.shape[1] - 1) if alike else self.bbox_head.text.flags()
        return torch.tensor(novel, dtype=torch.bool, device=scores.device)

    def _bbox_forward(self, x: Sequence[Tensor], rois: Tensor) -> dict[str, Any]:
        """As in mmdet, with fp32 levels: it casts RoIs to their type, and half a pixel is lost."""
        return super()._bbox_forward(_fp32(x[: self.bbox_roi_extractor.num_inputs]), rois)

    def _mask_forward(self, x: Sequence[Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As :meth:`_bbox_forward`."""
        levels = _fp32(x[: self.mask_roi_extractor.num_inputs])
        return super()._mask_forward(levels, *args, **kwargs)


def objectness_of(proposals: Sequence[InstanceData]) -> Tensor:
    """The RPN's scores (n,), probabilities, of the proposals of all images.

    Raises:
        ValueError: proposals without scores, as from a file.
    """
    if any("scores" not in found for found in proposals):
        raise ValueError(
            "test_cfg.rcnn.objectness needs the scores of an RPN, and these proposals have none: "
            "set objectness=0"
        )
    return torch.cat([found.scores for found in proposals])


def _fp32(levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Levels in float32, or float64 if they are that, and not with channels last in memory.

    mmcv's compiled RoIAlign reads such memory as if it were in the usual order.
    """
    return tuple(at_least_fp32(level).contiguous() for level in levels)


def check_test_cfg(cfg: Mapping[str, Any]) -> None:
    """Refuse options that do not suffice, before any training.

    Raises:
        ValueError: an unknown ``score``, an option that it needs is missing, out of its range, or
            nearly spelt like one.
    """
    for name in cfg:
        close = difflib.get_close_matches(str(name), OPTIONS, n=1, cutoff=0.85)
        if close and name not in OPTIONS:
            raise ValueError(f"test_cfg.rcnn has no option {name!r}; do you mean {close[0]!r}?")
    score = cfg.get("score", "fused")
    if score not in SCORES:
        raise ValueError(f"test_cfg.rcnn.score must be one of {SCORES}, got {score!r}")
    needed = {"fused": ("alpha", "beta", "vlm_temperature"), "vlm": ("vlm_temperature",)}
    missing = [name for name in needed.get(score, ()) if cfg.get(name) is None]
    if missing:
        raise ValueError(f"score={score!r} needs {', '.join(missing)} in test_cfg.rcnn")
    for name in ("alpha", "beta"):
        if cfg.get(name) is not None and not 0 <= cfg[name] <= 1:
            raise ValueError(f"test_cfg.rcnn.{name} must be in [0, 1], got {cfg[name]}")
    if not cfg.get("objectness", 0) >= 0:
        raise ValueError(f"test_cfg.rcnn.objectness must be 0 or more, got {cfg['objectness']}")
    for name in ("vlm_temperature", "detect_temperature"):
        if cfg.get(name) is not None and not cfg[name] > 0:
            raise ValueError(f"test_cfg.rcnn.{name} must be positive, got {cfg[name]}")
