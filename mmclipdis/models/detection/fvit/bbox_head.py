"""F-ViT's box head: regions are named by their cosine with text, thus any vocabulary will do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.losses import accuracy
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.models.utils import empty_instances
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor, scale_boxes
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmclipdis.clip.text.templates import Templates
from mmclipdis.models.detection.class_text import BACKGROUND, DetectorText, WithDetectorText
from mmclipdis.models.detection.nms import strongest_nms
from mmclipdis.utils.finite import check_scores
from mmclipdis.utils.precision import without_autocast

#: Regions that go through the layers at once in testing, where maps of 1000 are 50 MB each.
CHUNK = 256


@MODELS.register_module()
class FViTBBoxHead(WithDetectorText, ConvFCBBoxHead):
    r"""A ``ConvFCBBoxHead`` whose classifier is the text of the classes.

    .. math:: z_c = \tau \cos(r, t_c), \qquad c \in \{0..K-1, \text{background}\}

    with the region embedding r (D,), not negative since a ReLU makes it, the text embeddings t, and
    one learned temperature. Boxes are regressed for all classes together. Nothing in the weights
    depends on K, so that the classes of a trained head can be changed. The background may have
    several words (our addition): their probabilities add up, which keeps one column.

    Args:
        text_encoder, vocabulary, templates, text_embeddings, novel_classes: see
            :class:`~mmclipdis.models.detection.class_text.DetectorText`. The last row of a file of
            embeddings is the background (or as many as it has words).
        background: Word of the background, or several: what the picture shows where no thing is.
            Its embedding is the last column of the classifier; it is fixed, not learned.
        detect_temperature: :math:`\tau` before training. In testing,
            ``test_cfg.rcnn.detect_temperature`` takes the place of the learned one.
        fc_out_channels: D, that of the CLIP in use.
        num_shared_convs, num_shared_fcs, num_cls_fcs, num_reg_fcs: As in ``ConvFCBBoxHead``.
        **kwargs: Others of ``ConvFCBBoxHead``. The number of classes is that of the vocabulary.

    Raises:
        ValueError: no layer that could end in D channels, ``num_classes``, regression by class,
            or as ``DetectorText``.

    Source: F-ViT (CLIPSelf, ICLR 2024). Its unused K + 1 way linear layer is left out.
    """

    num_classes: int

    def __init__(
        self,
        text_encoder: Mapping[str, Any] | nn.Module | None = None,
        vocabulary: Any = "dataset",
        templates: Templates = "vild63",
        text_embeddings: str | None = None,
        novel_classes: str | Sequence[str] = "dataset",
        background: str | Sequence[str] = BACKGROUND,
        detect_temperature: float = 50.0,
        fc_out_channels: int = 512,
        num_shared_convs: int = 4,
        num_shared_fcs: int = 2,
        num_cls_fcs: int = 1,
        num_reg_fcs: int = 1,
        **kwargs: Any,
    ) -> None:
        _check_options(num_shared_fcs + num_cls_fcs, kwargs)
        kwargs.setdefault("loss_cls", {"type": "NovelMaskedCrossEntropyLoss"})
        kwargs["reg_class_agnostic"] = True
        super().__init__(
            num_shared_convs=num_shared_convs,
            num_shared_fcs=num_shared_fcs,
            num_cls_fcs=num_cls_fcs,
            num_reg_fcs=num_reg_fcs,
            fc_out_channels=fc_out_channels,
            num_classes=1,
            **kwargs,
        )
        # Without the stock layer, what forward() takes for scores are the region embeddings.
        self.fc_cls = nn.Identity()
        self.detect_temperature = nn.Parameter(torch.tensor(float(detect_temperature)))
        self.test_temperature: float | None = None
        self._nameless = False
        words = (background,) if isinstance(background, str) else tuple(background)
        if not words:
            raise ValueError("background has no word; F-ViT's is 'background'")
        self.text = DetectorText(
            text_encoder,
            vocabulary,
            templates,
            text_embeddings,
            embed_dim=fc_out_channels,
            words=words,
            novel_classes=novel_classes,
        )
        self._use_classes()

    @contextmanager
    def asked(self, names: Any) -> Iterator[None]:
        """Have other classes inside the block; see ``DetectorText.asked``."""
        count = self.num_classes
        with super().asked(names):
            self.num_classes = self.text.classes.num_classes if self.text.classes else count
            try:
                yield
            finally:
                self.num_classes = count

    @contextmanager
    def nameless(self) -> Iterator[None]:
        """Have :meth:`forward` give region embeddings (n, D) in place of logits in the block."""
        self._nameless = True
        try:
            yield
        finally:
            self._nameless = False

    def _use_classes(self) -> None:
        if self.vocabulary is None:
            return
        self.num_classes = self.vocabulary.num_classes
        if hasattr(self.loss_cls, "set_novel"):
            self.loss_cls.set_novel(self.novel)
        elif self.novel is not None and any(self.novel):
            warnings.warn(
                f"{type(self.loss_cls).__name__} trains novel classes as negatives; take "
                "loss_cls=dict(type='NovelMaskedCrossEntropyLoss')",
                stacklevel=3,
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Region features (n, C, 7, 7) -> logits (n, K + 1) float32 and box deltas (n, 4).

        Raises:
            RuntimeError: no classes are known yet.
        """
        embeddings, deltas = self.embed(x)
        return embeddings if self._nameless else self.classify(embeddings), deltas

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Region features (n, C, 7, 7) -> region embeddings (n, D) and box deltas (n, 4)."""
        if self.training or len(x) <= CHUNK:  # the norms of training look at all of them
            return super().forward(x)
        parts = [super(FViTBBoxHead, self).forward(part) for part in x.split(CHUNK)]
        embeddings, deltas = (torch.cat(part) for part in zip(*parts))
        return embeddings, deltas

    def classify(self, embeddings: Tensor) -> Tensor:
        """Logits (n, K + 1) float32 of region embeddings (n, D)."""
        fixed = None if self.training else self.test_temperature
        text = self.text.embeddings()
        unit = F.normalize(embeddings.to(text.dtype), dim=1)
        return self.compare(unit, self.detect_temperature if fixed is None else fixed)

    def compare(self, unit: Tensor, temperature: float | Tensor) -> Tensor:
        """Temperature times cosine with the text, (n, K + 1), of float32 unit vectors (n, D).

        Of several words for the background, their log-sum-exp: what their probabilities add up to.
        """
        text = self.text.embeddings()
        with without_autocast(unit):
            logits = temperature * (unit @ text.T)
            if len(self.text.words) == 1:
                return logits
            classes, words = logits.split((self.num_classes, len(self.text.words)), dim=1)
            return torch.cat((classes, words.logsumexp(dim=1, keepdim=True)), dim=1)

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        rois: Tensor,
        labels: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in mmdet, but ``acc`` is among the classes that are trained and the background."""
        losses: dict[str, Any] = super().loss(cls_score, bbox_pred, rois, labels, *args, **kwargs)
        if "acc" in losses and self.novel is not None:
            untrained = torch.tensor((*self.novel, False), device=cls_score.device)
            losses["acc"] = accuracy(cls_score.masked_fill(untrained, -torch.inf), labels)
        return losses

    def _predict_by_feat_single(
        self,
        roi: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        img_meta: dict[str, Any],
        rescale: bool = False,
        rcnn_test_cfg: Any = None,
    ) -> InstanceData:
        """Detections of an image, as in mmdet, but ``cls_score`` are scores: there is no softmax.

        Args:
            roi: (n, 5).
            cls_score: (n, K + 1), any scores, the background's last.
            bbox_pred: (n, 4) deltas.
            img_meta: With ``img_shape`` and, to rescale, ``scale_factor``.
            rescale: Give boxes in pixels of the original image.
            rcnn_test_cfg: ``score_thr``, ``nms``, ``max_per_img``; None for all boxes and scores.

        Raises:
            ValueError: scores or boxes are not finite; names the image.
        """
        check_scores(cls_score, img_meta)
        check_scores(bbox_pred, img_meta, "boxes")
        results = InstanceData()
        if len(roi) == 0:
            return empty_instances(
                [img_meta],
                roi.device,
                task_type="bbox",
                instance_results=[results],
                num_classes=self.num_classes,
                score_per_cls=rcnn_test_cfg is None,
            )[0]
        boxes = self.bbox_coder.decode(
            roi[:, 1:], bbox_pred.to(roi.dtype), max_shape=img_meta["img_shape"]
        )
        if rescale:
            boxes = scale_boxes(boxes, [1 / factor for factor in img_meta["scale_factor"]])
        boxes = get_box_tensor(boxes)
        if rcnn_test_cfg is None:
            results.bboxes, results.scores = boxes, cls_score
            return results
        found, results.labels = strongest_nms(
            boxes,
            cls_score,
            rcnn_test_cfg.score_thr,
            rcnn_test_cfg.nms,
            rcnn_test_cfg.max_per_img,
        )
        results.bboxes, results.scores = found[:, :-1], found[:, -1]
        return results


def _check_options(layers: int, kwargs: Mapping[str, Any]) -> None:
    if layers < 1:
        raise ValueError("num_shared_fcs or num_cls_fcs must make the region embedding; both are 0")
    if "num_classes" in kwargs:
        raise ValueError("num_classes follows from the vocabulary; leave it out of FViTBBoxHead")
    if not kwargs.get("reg_class_agnostic", True):
        raise ValueError("FViTBBoxHead regresses boxes for all classes together, in any vocabulary")
    if not kwargs.get("with_cls", True) or not kwargs.get("with_reg", True):
        raise ValueError("FViTBBoxHead has both branches: with_cls and with_reg cannot be False")
