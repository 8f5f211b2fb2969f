"""CLIP's own zero-shot recognition, and a second look at the segments that DCLIP finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.text.templates import Templates
from mmclipdis.engine.random_weights import check_weights
from mmclipdis.models.class_text import ClassText, WithClassText, check_same_clip
from mmclipdis.models.recognition.samples import attach
from mmclipdis.models.recognition.segments import DCLIPSegments, resize, side_lengths
from mmclipdis.models.score_scale import ScoreScale, probabilities_of

#: Crops that the encoder sees at a time.
CROPS_AT_ONCE = 64


@MODELS.register_module()
class ZeroShotRecognizer(ScoreScale, WithClassText, BaseModel):
    r"""Cosine of CLIP's image embedding with the names of the classes; nothing is learned.

    .. math:: \ell_c = s \max\bigl(\cos(e(I), t_c), \max_k \cos(e(I_k), t_c)\bigr)

    with CLIP's embedding :math:`e` of the image and, if there are ``segments``, of the boxes
    :math:`I_k` that DCLIP's segmentation finds in it.

    Args:
        encoder: Config of a ``CLIPResNet`` or ``CLIPViT``, or the module. Its readout (``vv``, a
            ``CLIPSurgeryViT``) makes the map that is segmented; CLIP's embedding has none.
        text_encoder: Config of an ``OpenCLIPTextEncoder`` of the same CLIP, or the module.
        vocabulary: As in :class:`~mmclipdis.models.recognition.dclip.DCLIP`.
        templates: Prompts of the classes.
        image_size: Side, or (height, width), in pixels at which CLIP looks at the whole image; None
            as it comes.
        logit_scale: :math:`s`; CLIP's learned one is 100, ``'file'`` that of the text encoder's
            weights.
        segments: Options of :class:`~mmclipdis.models.recognition.segments.DCLIPSegments`, at least
            ``projector``; None for the whole image only. Crops are cut out of the image as it
            comes.
        data_preprocessor: By default a
            :class:`~mmclipdis.models.recognition.preprocessor.DCLIPDataPreprocessor`.
        init_cfg: As in mmengine.
        score: ``'softmax'`` over the classes, or ``'sigmoid'`` of each alone, as SigLIP was
            trained.
        logit_bias: Added before the sigmoid: a number, or ``'file'`` with the file's scale.

    Raises:
        ValueError: parts of different CLIPs, options that contradict each other, or as
            ``DCLIPSegments``.

    Source: CLIP (ICML 2021); DCLIP (arXiv 2502.02977), Table 5.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any] | nn.Module,
        text_encoder: Mapping[str, Any] | nn.Module,
        vocabulary: Any = "dataset",
        templates: Templates = "single",
        image_size: int | Sequence[int] | None = None,
        logit_scale: float | str = 100.0,
        segments: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        score: str = "softmax",
        logit_bias: float | str | None = None,
    ) -> None:
        super().__init__(
            data_preprocessor=data_preprocessor or {"type": "DCLIPDataPreprocessor"},
            init_cfg=init_cfg,
        )
        self.encoder: Any = MODELS.build(encoder) if isinstance(encoder, Mapping) else encoder
        width: Any = self.encoder.embed_dim
        arch = getattr(self.encoder, "arch", None)
        whole = getattr(self.encoder, "image_dim", width)
        self.segments = None
        prompts = [templates]
        if segments is not None:
            if whole != width:
                raise ValueError(
                    f"segments: the encoder embeds images in {whole} channels and its dense map "
                    f"has {width}, as dino.txt's, and DCLIP's projectors were made for one text of "
                    "both; leave segments out"
                )
            self.segments = DCLIPSegments(**{"in_dim": width, "arch": arch, **segments})
            prompts.append(self.segments.templates)
        self.text = ClassText(text_encoder, vocabulary, embed_dim=whole, prompt_sets=prompts)
        check_same_clip(arch, self.text.encoder)
        self.image_size = side_lengths("image_size", image_size)
        self.take_scale(logit_scale, score, logit_bias, self.text.encoder)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = "tensor"
    ) -> Any:
        """Samples with predictions (``'predict'``) or logits (B, N) (``'tensor'``).

        ``pred_logit`` (N,) is the logit, which ranks images and classes; ``pred_score`` its softmax
        over the classes, as CLIP classifies. The scores of an image sum to 1, so that at most one
        is above 0.5: to decide, take the best few (``MultiLabelMetric(topk=3)``). With
        ``score='sigmoid'`` it is the sigmoid of logit and bias.

        Args:
            inputs: Normalised images (B, 3, H, W).
            data_samples: One an image.
            mode: ``'predict'`` or ``'tensor'``.

        Raises:
            RuntimeError: no classes are known yet.
            ValueError: another mode, or projectors trained on a CLIP with other weights.
        """
        if mode == "tensor":
            return self.logits(inputs)
        if mode != "predict":
            raise ValueError(f"ZeroShotRecognizer learns nothing, it only predicts; got {mode!r}")
        check_weights(self)
        logits = self.logits(inputs)
        return attach(data_samples, logits, self.probabilities(logits))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of logits (..., N): their softmax, or the sigmoid of each with the bias."""
        return probabilities_of(logits, self.logit_bias, dim=-1)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, N) of normalised images (B, 3, H, W)."""
        text = self.text.embeddings()
        if self.segments is None:
            return self._compare(self._view(images), text)
        if not self.segments.any_arch:
            self.segments.projector.belong_to(self.encoder)
        text, asked = text.chunk(2)
        whole = self._compare(self._view(images), text)
        maps = self.encoder.dense(resize(images, self.segments.size, "bicubic")).map
        labels = self.segments.labels(maps, asked, images.shape[-2:])
        crops = [self.segments.crops(*pair) for pair in zip(images, labels, strict=True)]
        size = self.segments.crop_size or self.image_size or images.shape[-2:]
        flat = [resize(crop[None], size, "bicubic") for own in crops for crop in own]
        starts = range(0, len(flat), CROPS_AT_ONCE)
        parts = [self._compare(torch.cat(flat[i : i + CROPS_AT_ONCE]), text) for i in starts]
        found = torch.cat([whole[:0], *parts]).split([len(own) for own in crops])
        return torch.stack([self.segments.combine(*pair) for pair in zip(whole, found)])

    def _view(self, images: Tensor) -> Tensor:
        return resize(images, self.image_size, "bicubic")

    def _compare(self, images: Tensor, text: Tensor) -> Tensor:
        """Scaled cosines (B, N), float32, of images as CLIP sees them."""
        embeddings = self.encoder.tower.encode_image(images)
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = F.normalize(embeddings.to(text.dtype), dim=1)
            return self.logit_scale * unit @ F.normalize(text, dim=1).T
