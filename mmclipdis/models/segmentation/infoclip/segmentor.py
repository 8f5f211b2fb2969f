"""InfoCLIP: fine-tune an open-vocabulary segmentor without losing CLIP's alignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from mmengine.model import ModuleDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmclipdis.losses.alignment_transfer import (
    check_transfer_options,
    compression_loss,
    distillation_loss,
)
from mmclipdis.losses.content import content_loss
from mmclipdis.models.segmentation.infoclip.gradient_norms import gradient_norms
from mmclipdis.models.segmentation.infoclip.parts import (
    COMPRESSION,
    DISTILLATION,
    ENCODERS,
    IMAGE,
    check_image_distillation,
    check_losses,
    check_segmentor,
    has_gradient,
    make_teacher,
    teacher_configs,
)
from mmclipdis.models.segmentation.infoclip.wrapped_segmentor import WrappedSegmentor
from mmclipdis.models.segmentation.prediction import resize
from mmclipdis.models.segmentation.window_segmentor import refuse_pretrained
from mmclipdis.models.text_encoder import dense_option


@MODELS.register_module()
class InfoCLIP(WrappedSegmentor):
    r"""A segmentor that learns its task and keeps the pixel-text alignment of the CLIP it began as.

    .. math:: L = L_{task} + \lambda_1 L_c + \lambda_2 L_d, \quad
              L_c = I(V^T, L^T; R^T) \text{ less a constant}, \quad L_d = -I(R^T; R^S)

    A frozen copy of the encoders, the teacher T, sees the crops of the student S. The LPAM turns
    patch tokens V and class embeddings L of either into a relation R. ``L_c`` shapes the LPAM
    alone, ``L_d`` the LPAM and the student's encoders; what follows the encoders in the segmentor
    learns from its task only. Features and class embeddings of the student are computed once an
    iteration and serve all three losses.

    Only training differs from the segmentor: validation, testing and augmented testing are handed
    to it. The teacher is in no checkpoint, optimizer or DDP bucket. ``init_weights()`` makes it
    from what the student's own ``init_weights()`` loaded, so that a resumed run has the same one.

    Args:
        segmentor: Config of a :class:`~mmclipdis.models.segmentation.catseg.segmentor.CATSeg`,
            or of another segmentor with ``image_encoder`` and ``text_encoder``, ``clip_size``,
            ``extract_feat(inputs).map``, ``class_embeddings()``, ``losses_of(features, text,
            data_samples)`` and a vocabulary.
        teacher: ``{'image_encoder': {...}, 'text_encoder': {...}}``, options that differ from the
            student's, such as ``init_cfg``; one of them or both. None: the student's start.
        lpam: Options of :class:`~mmclipdis.models.segmentation.infoclip.lpam.LPAM`, such as
            ``relation``, ``residual``.
        compression: ``{'weight': 1.0}``, or None to leave ``L_c`` out.
        distillation: ``weight``, ``kind`` (``'mi'``: ``L_d``; ``'mse'`` or ``'kl'`` of the two
            relations; ``'image'``: 1 - cosine of the image embeddings of student and teacher, as
            MAFT-like methods keep CLIP, which wants ``compression=None`` and
            ``lpam=dict(relation='cosine')``), ``temperature`` (of ``'kl'``), ``detach_teacher``
            (True: the teacher's relation is a constant for it).
        alpha: Order of the Rényi entropy; 2 is published, and by far the cheapest.
        gram_axis: ``'batch'``: samples are the images of all ranks (two or more); ``'pixel'``: the
            pixels of an image.
        subsample: With ``'pixel'``, at most this many pixels.
        grad_norm_interval: Log the norms of the weighted terms' gradients every so many training
            iterations; costs a backward pass a term, up to three more. 0 switches it off.
        data_preprocessor: The segmentor's own by default.
        init_cfg: None; weights come from the ``init_cfg`` of the segmentor and its encoders.
        pretrained, train_cfg: None, which mmseg's tools write.

    Raises:
        TypeError: for a segmentor without the parts named above.
        ValueError: for unknown options, options without effect, losses that could teach nothing, or
            an ``init_cfg``.

    Source: InfoCLIP (AAAI 2026), from its public summaries; what is ours: docs/infoclip.md.
    """

    def __init__(
        self,
        segmentor: Mapping[str, Any],
        teacher: Mapping[str, Any] | None = None,
        lpam: Mapping[str, Any] | None = None,
        compression: Mapping[str, Any] | None = COMPRESSION,
        distillation: Mapping[str, Any] = DISTILLATION,
        alpha: float = 2.0,
        gram_axis: Literal["batch", "pixel"] = "batch",
        subsample: int | None = None,
        grad_norm_interval: int = 50,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        refuse_pretrained(pretrained, type(self).__name__, "segmentor.image_encoder")
        if train_cfg:
            raise ValueError(f"InfoCLIP has no train_cfg, got {dict(train_cfg)}; leave it out")
        if init_cfg is not None:
            raise ValueError(
                "InfoCLIP has no init_cfg, since its teacher would be made from the fine-tuned "
                "weights: load a checkpoint of InfoCLIP by load_from, and one of the segmentor by "
                "model.segmentor.init_cfg"
            )
        student = MODELS.build(segmentor)
        check_segmentor(student)
        super().__init__(student, data_preprocessor)
        self.lpam = MODELS.build(
            {"type": "LPAM", "embed_dim": student.image_encoder.embed_dim, **(lpam or {})}
        )
        check_losses(
            compression,
            distillation,
            learnable=has_gradient(self.lpam),
            student=any(has_gradient(getattr(student, name)) for name in ENCODERS),
        )
        self.compression = None if compression is None else {**COMPRESSION, **compression}
        self.distillation = {**DISTILLATION, **distillation}
        self._gram: dict[str, Any] = {
            "alpha": alpha,
            "gram_axis": gram_axis,
            "subsample": subsample,
        }
        kind = {name: self.distillation[name] for name in ("kind", "temperature")}
        self.on_images = kind["kind"] == IMAGE
        if self.on_images:
            learns = has_gradient(student.image_encoder)
            check_image_distillation(learns, self._gram, kind["temperature"])
            kind = {}
        # mse and kl have no Gram matrix; its options are then for the compression alone.
        uses_gram = kind.get("kind") == "mi" or self.compression is None
        self._distil = {**kind, **(self._gram if uses_gram else {})}
        for options in (self._gram, self._distil):
            check_transfer_options(**options)
        if grad_norm_interval < 0:
            raise ValueError(
                f"grad_norm_interval must be 0 (never) or more, got {grad_norm_interval}"
            )
        self.grad_norm_interval = grad_norm_interval
        self._iterations = 0
        self._configs = teacher_configs(segmentor, teacher)
        # In a tuple, which PyTorch does not look into: the teacher is then no part of checkpoints,
        # optimizer groups and DDP by itself. It follows .to() through _apply().
        self._teacher: tuple[ModuleDict, ...] = ()

    @property
    def teacher(self) -> ModuleDict:
        """The frozen ``image_encoder`` and ``text_encoder``.

        Raises:
            RuntimeError: before ``init_weights()``.
        """
        if not self._teacher:
            raise RuntimeError(
                "InfoCLIP has no teacher yet: call init_weights() before the training, as Runner "
                "does; the teacher is the CLIP that the student starts from"
            )
        return self._teacher[0]

    def init_weights(self) -> None:
        """Load what ``init_cfg`` of all parts name; then make the teacher, once."""
        super().init_weights()
        if not self._teacher:
            self._teacher = (make_teacher(self.segmentor, self._configs),)

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Losses of the segmentor, ``loss_compression`` and ``loss_distillation`` (weighted).

        Args:
            inputs: Normalised crops ``(B, 3, H, W)``.
            data_samples: Their label maps ``gt_sem_seg``.

        Raises:
            RuntimeError: there is no teacher yet.
            ValueError: a single image in all where the losses compare images.
        """
        asked = {"with_cls": True} if self.on_images else {}
        features, text = self.segmentor.extract_feat(inputs, **asked), self.class_embeddings()
        losses: dict[str, Tensor] = self.segmentor.losses_of(features, text, data_samples)
        task = sum(value for name, value in losses.items() if "loss" in name)
        if self.on_images:
            value = content_loss(features.cls, self.teach_images(inputs))
            losses["loss_distillation"] = self.distillation["weight"] * value
        else:
            losses |= self.transfer_losses(inputs, features.map, text)
        if self._measures_now():
            losses |= self._gradient_norms({"task": task, **losses})
        return losses

    def transfer_losses(self, inputs: Tensor, dense: Tensor, text: Tensor) -> dict[str, Tensor]:
        """``L_c`` and ``L_d``, weighted.

        Args:
            inputs: Normalised crops ``(B, 3, H, W)``.
            dense: The student's map ``(B, E, h, w)``.
            text: The student's class embeddings ``(T, E)``.
        """
        teacher_images, teacher_text = self.teach(inputs)
        taught = self.lpam(teacher_images, teacher_text)
        losses = {}
        if self.compression is not None:
            # Without the text: all samples share it, so that its Gram matrix is all ones.
            value = compression_loss(teacher_images, taught, **self._gram)
            losses["loss_compression"] = self.compression["weight"] * value
        if self.distillation["detach_teacher"]:
            taught = taught.detach()
        learned = self.lpam(dense.flatten(2).mT, text)
        value = distillation_loss(taught, learned, **self._distil)
        losses["loss_distillation"] = self.distillation["weight"] * value
        return losses

    # no inference_mode, whose tensors LPAM could not keep for the gradient of its weights
    @torch.no_grad()
    def teach(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's patch tokens ``(B, h*w, E)`` of crops, and class embeddings ``(T, E)``."""
        teacher: Any = self.teacher
        dense = teacher["image_encoder"].dense(resize(inputs, self.segmentor.clip_size))
        vocabulary = self.vocabulary
        if vocabulary is None:  # as the segmentor says
            raise ValueError("InfoCLIP does not know its classes yet: call set_vocabulary(names)")
        # Computed once a vocabulary, and again after the teacher's weights have changed.
        text = teacher["text_encoder"]
        return dense.map.flatten(2).mT, text.embed(vocabulary, **dense_option(text))

    @torch.no_grad()
    def teach_images(self, inputs: Tensor) -> Tensor:
        """The teacher's embeddings ``(B, E)`` of crops ``(B, 3, H, W)``: those of ordinary CLIP."""
        images: Any = self.teacher["image_encoder"]
        found: Tensor = images.dense(resize(inputs, self.segmentor.clip_size), with_cls=True).cls
        return found

    def _measures_now(self) -> bool:
        if not (self.grad_norm_interval and self.training and torch.is_grad_enabled()):
            return False
        self._iterations += 1
        return (self._iterations - 1) % self.grad_norm_interval == 0

    def _gradient_norms(self, terms: Mapping[str, Any]) -> dict[str, Tensor]:
        encoders = [
            p
            for name in ENCODERS
            for p in getattr(self.segmentor, name).parameters()
            if p.requires_grad
        ]
        lpam = [p for p in self.lpam.parameters() if p.requires_grad]
        found = {}
        for term in ("task", "loss_compression", "loss_distillation"):
            if term in terms:
                groups = {"encoders": encoders, "lpam": lpam}
                short = term.removeprefix("loss_")
                for group, norm in gradient_norms(terms[term], groups).items():
                    found[f"grad_{short}_{group}"] = norm
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> InfoCLIP:
        super()._apply(fn, recurse)
        for module in self._teacher:
            module._apply(fn, recurse)
        return self
