"""DCLIP: classes of an image by a frozen CLIP and two projectors that pull classes apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.text.templates import Templates
from mmclipdis.engine.random_weights import check_weights, training_begins
from mmclipdis.models.class_text import ClassText, WithClassText, check_same_clip
from mmclipdis.models.projectors import Projectors
from mmclipdis.models.recognition.pooling import (
    ORDERS,
    POOLINGS,
    pooled_logits,
    spatial_logits,
)
from mmclipdis.models.recognition.samples import attach, targets
from mmclipdis.models.unsaved import SharesUnsaved, leave_out_of_checkpoints

#: The losses as published; the weights belong to sums over labels and over entries of a matrix.
ASL = {"type": "AsymmetricLoss", "loss_weight": 0.05}
MFI = {"type": "MFILoss", "loss_weight": 7e-5}


@MODELS.register_module()
class DCLIP(SharesUnsaved, WithClassText, BaseModel):
    r"""Multi-label recognition with disentangled CLIP features.

    Every token of the image and both prompts of every class (one denies it, one affirms it) are
    projected, compared and pooled (:func:`~mmclipdis.models.recognition.pooling.spatial_logits`);
    :math:`z = \ell_{pos} - \ell_{neg}` is the logit of the class. The loss is that of the labels
    plus *mutual feature information*, which keeps the class texts unlike each other:

    .. math:: L = 0.05 \cdot \mathrm{ASL}(z, y) + \alpha \cdot \mathrm{MFI}(T'), \quad
              \alpha = 7 \cdot 10^{-5}

    CLIP stays as it is and in eval mode. Checkpoints hold the projectors only: the weights of CLIP
    come from its ``init_cfg``, also when a checkpoint is tested; those of another CLIP's image
    encoder are refused then (``projectors=dict(any_arch=True)`` takes them). Everything behind
    CLIP's image encoder is computed in float32, also under autocast.

    Args:
        encoder: Config of a frozen ``CLIPResNet`` or ``CLIPViT``, or the module; its readout
            decides what a token is (``v`` for a ResNet, ``vanilla`` for a ViT).
        text_encoder: Config of a frozen ``OpenCLIPTextEncoder`` of the same CLIP, or the module.
        projectors: Config of :class:`~mmclipdis.models.projectors.Projectors`, without ``in_dim``
            and ``arch``, which are the encoder's; or the module.
        vocabulary: ``'dataset'`` to take the classes of the data set in use (``VocabularyHook``
            names them, also other ones in testing than in training), or anything that
            :func:`~mmclipdis.models.text_encoder.build_vocabulary` reads, one name a class.
        prompts: The negative prompt and the positive one, or two lists of them.
        pooling: ``'separate'`` (DCLIP) or ``'positive'`` (DualCoOp).
        order: ``'project_pool'`` (DCLIP): tokens are projected, compared and pooled.
            ``'pool_project'``, for comparison: CLIP's own tokens and texts decide about places, and
            what they pool to is projected (``pooled_logits`` of the same module).
        logit_temperature: Inverse temperature of the softmax over places.
        logit_scale: Factor of the pooled scores.
        mean_token: Whether a ResNet's mean token is one of the tokens. (A ViT has none.) True needs
            an encoder that reads it out, as by default.
        asl: Config of the loss of labels, called with z and labels (B, N) in {0, 1, -1}.
        mfi: Config of the loss of projected texts (2N, d'), negative ones first; None for none.
        data_preprocessor: By default a
            :class:`~mmclipdis.models.recognition.preprocessor.DCLIPDataPreprocessor`.
        init_cfg: As in mmengine.

    Raises:
        ValueError: an encoder that trains, parts of different CLIPs, an unknown option, or options
            that contradict each other.

    Source: DCLIP (arXiv 2502.02977), section 3; see docs/dclip.md.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any] | nn.Module,
        text_encoder: Mapping[str, Any] | nn.Module,
        projectors: Mapping[str, Any] | Projectors | None = None,
        vocabulary: Any = "dataset",
        prompts: Sequence[Templates] = ("Not a photo of a {}", "A photo of a {}"),
        pooling: str = "separate",
        logit_temperature: float = 20.0,
        logit_scale: float = 5.0,
        mean_token: bool = True,
        asl: Mapping[str, Any] = ASL,
        mfi: Mapping[str, Any] | None = MFI,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        order: str = "project_pool",
    ) -> None:
        super().__init__(
            data_preprocessor=data_preprocessor or {"type": "DCLIPDataPreprocessor"},
            init_cfg=init_cfg,
        )
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
        if isinstance(prompts, str) or len(prompts) != 2:
            raise ValueError(f"prompts must be the negative and the positive one, got {prompts!r}")
        self.encoder: Any = MODELS.build(encoder) if isinstance(encoder, Mapping) else encoder
        if any(p.requires_grad for p in self.encoder.parameters()):
            raise ValueError("DCLIP's encoder stays as it is: give it trainable=()")
        if mean_token and getattr(self.encoder, "mean_token", True) is False:
            raise ValueError(
                "DCLIP(mean_token=True) asks for the mean token, its encoder has mean_token=False: "
                "set model.mean_token=False to do without, or leave the encoder's out"
            )
        width: Any = self.encoder.embed_dim
        arch = getattr(self.encoder, "arch", None)
        self.text = ClassText(text_encoder, vocabulary, embed_dim=width, prompt_sets=prompts)
        check_same_clip(arch, self.text.encoder)
        self.projectors = _build_projectors(projectors, width, arch)
        self.pooling = pooling
        self.order = order
        self.logit_temperature = logit_temperature
        self.logit_scale = logit_scale
        self.mean_token = mean_token
        self.asl = MODELS.build(asl)
        self.mfi = None if mfi is None else MODELS.build(mfi)
        leave_out_of_checkpoints(self, ("encoder", "text"))
        self.train(self.training)  # CLIP in eval mode from the start

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = "tensor"
    ) -> Any:
        """As mmengine's models.

        Args:
            inputs: Normalised images (B, 3, H, W), or their :meth:`tokens` (B, L, D).
            data_samples: One an image; ``'loss'`` reads ``gt_score`` (N,) in {0, 1, -1 unknown}.
            mode: ``'loss'`` gives the losses by their names, ``'predict'`` the samples with
                ``pred_logit`` (z, which ranks without ties) and ``pred_score`` (its sigmoid), both
                (N,), ``'tensor'`` the pairs of logits (B, 2, N).

        Raises:
            RuntimeError: no classes are known yet, or predictions by projectors without weights.
            ValueError: another mode, no labels or those of other classes, or projectors that were
                trained on a CLIP with other weights.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples or ())
        if mode == "predict":
            return self.predict(inputs, data_samples)
        if mode == "tensor":
            return self.logits(inputs, self.class_features())
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """The losses by their names; see :meth:`forward`."""
        training_begins(self)
        text = self.class_features()
        labels = targets(data_samples, len(text) // 2, text.device)
        negative, positive = self.logits(inputs, text).unbind(1)
        losses = {self.asl.loss_name: self.asl(positive - negative, labels)}
        if self.mfi is not None:
            losses[self.mfi.loss_name] = self.mfi(text)
        return losses

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> list[Any]:
        """The samples with predictions; see :meth:`forward`."""
        check_weights(self)
        negative, positive = self.logits(inputs, self.class_features()).unbind(1)
        logits = positive - negative
        return attach(data_samples, logits, logits.sigmoid())

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """CLIP's tokens (B, L, D) of normalised images (B, 3, H, W), row by row, mean token first.

        Constants: never part of a graph, and what ``--cache-features`` keeps.
        """
        self.projectors.belong_to(self.encoder)
        dense = self.encoder.dense(images)
        tokens = dense.map.flatten(2).mT
        if self.mean_token and dense.mean_token is not None:
            tokens = torch.cat([dense.mean_token[:, None], tokens], dim=1)
        return tokens.contiguous()

    def class_features(self) -> Tensor:
        """Projected prompts (2N, d'), negative ones first, not normalised.

        Raises:
            RuntimeError: no classes are known yet.
        """
        self.projectors.belong_to(self.encoder)
        embeddings = self.text.embeddings()
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.projectors.text(embeddings)

    def logits(self, inputs: Tensor, text: Tensor) -> Tensor:
        """Pairs of logits (B, 2, N) of images or tokens and projected texts (2N, d')."""
        tokens = self.tokens(inputs) if inputs.ndim == 4 else inputs
        width = self.projectors.in_dim
        if tokens.ndim != 3 or tokens.shape[2] != width:
            raise ValueError(
                f"expected images (B, 3, H, W) or tokens (B, L, {width}), got {tuple(inputs.shape)}"
            )
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.to(self.projectors.dtype)
            options = (self.logit_temperature, self.logit_scale, self.pooling)
            if self.order == "pool_project":
                own = self.text.embeddings()
                return pooled_logits(tokens, own, text, self.projectors.image, *options)
            return spatial_logits(self.projectors.image(tokens), text, *options)

    def train(self, mode: bool = True) -> DCLIP:
        """As in PyTorch; CLIP stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        self.text.eval()
        return self


def _build_projectors(
    projectors: Mapping[str, Any] | Projectors | None, width: int, arch: Any
) -> Projectors:
    if not isinstance(projectors, Projectors):
        own = {"type": "Projectors", "in_dim": width, "arch": arch}
        built: Projectors = MODELS.build({**own, **(projectors or {})})
        return built
    if projectors.in_dim != width:
        raise ValueError(
            f"the encoder has {width} channels, the projectors take {projectors.in_dim}"
        )
    return projectors
