"""Which models can be exported, what of each of them stays open, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmclipdis.export.changing import changed
from mmclipdis.utils.labels import no_class

Size = tuple[int, int]
WINDOWS_LEFT_OUT = (
    "the model slides windows of {crop} pixels every {stride}, whose number depends on the size of "
    "the image: the file looks at the whole image at once (test_cfg.mode='whole'); fix the size "
    "(--image-size) to have the windows in the file"
)


@dataclass(frozen=True)
class Exportable:
    """A model, ready to be captured.

    Attributes:
        task: ``segment``, ``tag`` or ``detect``.
        program: What becomes the file, from images (B, 3, H, W) to its outputs.
        reference: The same by the model's own code, to compare with.
        outputs: Their names.
        step: Sides of images are multiples of it, (height, width) in pixels.
        batch: Whether any number of images goes in, or one.
        notes: What is other than in the model.
        facts: What the file says of its outputs.
        settings: What holds while it is captured.
        settled: Whether rounding cannot change a rank that the outputs hang on, to choose images
            for the check.
    """

    task: str
    program: nn.Module
    reference: Callable[[Tensor], tuple[Tensor, ...]]
    outputs: tuple[str, ...]
    step: Size = (1, 1)
    batch: bool = True
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    settings: Callable[[], AbstractContextManager[None]] = nullcontext
    settled: Callable[[Tensor], bool] = lambda images: True


def refuse_kind(kind: type) -> None:
    """Refuse a class of models that cannot be exported, before one is built.

    Raises:
        ValueError: says why.
    """
    if not any(base.__name__ in _KINDS for base in kind.__mro__):
        raise ValueError(_refusal(kind))


def exportable(model: Any, size: Size | None) -> Exportable:
    """A model as something that can be captured.

    Args:
        model: Knows its classes and has its weights; in eval mode.
        size: (height, width) of all images, or None for any.

    Raises:
        ValueError: the model, or an option of it, cannot be exported; says why.
    """
    from mmclipdis.clip.towers.self_calibrated import SelfCalibrated
    from mmclipdis.models.guided import Guided

    refuse_kind(type(model))
    if getattr(model, "needs_masks", False):
        raise ValueError(
            f"{type(model).__name__} is not exported while it needs masks, which are files of a "
            "photo or a function in Python: leave out what reads them, a readout with "
            "scope='masks' or the refiner MaskVote"
        )
    if any(isinstance(part, Guided) and part.affinity is not None for part in model.modules()):
        raise ValueError(
            f"{type(model).__name__} is not exported while a vision model guides its readout: "
            "choose a readout without affinity, such as 'clearclip', or use mmclipdis itself"
        )
    known = [base.__name__ for base in type(model).__mro__ if base.__name__ in _KINDS]
    found = _KINDS[known[0]](model, size)
    readouts = [getattr(part, "readout", None) for part in model.modules()]
    calibrated = any(isinstance(readout, SelfCalibrated) for readout in readouts)
    if calibrated and size is None and found.step != (1, 1):  # which resizes images itself
        raise ValueError(
            f"{type(model).__name__} with the readout of SC-CLIP is exported for images of one "
            "size only: fix it (--image-size)"
        )
    return found


def _refusal(kind: type) -> str:
    name, bases = kind.__name__, {base.__name__ for base in kind.__mro__}
    if "BaseDetector" in bases:
        return (
            f"{name} is not exported: its classes are in its weights, so that no words can be "
            "given; of detectors FViT and OVDQUO are"
        )
    return (
        f"{name} is not exported: OpenVocabSegmentor (CLIP, MaskCLIP, SCLIP, ClearCLIP, DeCLIP, "
        "CLIP-Surgery), EncoderDecoder with a CosineSegHead, CATSeg, InfoCLIP, DCLIP, "
        "ZeroShotRecognizer, FViT and OVDQUO are"
    )


def _open_vocab(model: Any, size: Size | None) -> Exportable:
    from mmclipdis.export.segmentors import CosineMaps, FixedWindows, WholeImage
    from mmclipdis.models.segmentation.settings import OpenVocabTestSettings

    _refuse_refiners(model)
    head, settings = model.decode_head, OpenVocabTestSettings.from_cfg(model.test_cfg)
    patch: Size = tuple(model.backbone.patch_size)
    if model.token_mixer is not None:
        raise ValueError(
            f"a model with token_mixer={type(model.token_mixer).__name__} is not exported; export "
            "it without, --cfg-options model.token_mixer=None"
        )
    if settings.stitch != "scores" and settings.mode == "slide" and size is not None:
        raise ValueError(
            f"windows with test_cfg.stitch={settings.stitch!r} are not exported: leave the size of "
            "images open, which makes the file look at whole images, or stitch 'scores', "
            "--cfg-options model.test_cfg.stitch=scores"
        )
    parts = (CosineMaps(model.backbone, head), head.rule(), head.score_norm == "minmax")
    mode, notes = settings.mode, tuple[str, ...]()
    program: nn.Module = WholeImage(*parts)
    if size is not None:
        program = FixedWindows(*parts, patch, settings, size)
    elif mode == "slide":
        sides = {"crop": settings.crop_size, "stride": settings.stride}
        mode, notes = "whole", (WINDOWS_LEFT_OUT.format(**sides),)
    reference = _probabilities(model, {**(model.test_cfg or {}), "mode": mode})
    return Exportable(
        "segment", program, reference, ("scores",), patch, notes=notes, facts=_facts(head.rule())
    )


def _stock(model: Any, size: Size | None) -> Exportable:
    from mmclipdis.export.segmentors import CosineMaps, WholeImage

    head = model.decode_head
    backbone = nn.Sequential(model.backbone, model.neck) if model.with_neck else model.backbone
    patch = tuple(getattr(model.backbone, "patch_size", (32, 32)))
    if size is not None and (size[0] % patch[0] or size[1] % patch[1]):
        raise ValueError(
            f"image_size={size} is no multiple of the patch of {patch} pixels, as "
            "EncoderDecoder needs it here: choose one"
        )
    cfg, notes = model.test_cfg or {}, tuple[str, ...]()
    if cfg.get("mode") == "slide":
        notes = (
            f"the model slides windows of {cfg.get('crop_size')} pixels: the file looks at the "
            "whole image at once; a type='OpenVocabSegmentor' can have its windows in the file",
        )

    def reference(images: Tensor) -> tuple[Tensor, ...]:
        meta = {"img_shape": torch.Size(images.shape[-2:])}
        with changed(head, prob_thd=0.0):
            return (model.encode_decode(images, [dict(meta) for _ in images]),)

    program = WholeImage(CosineMaps(backbone, head), head.rule())
    facts = _facts(head.rule())
    return Exportable("segment", program, reference, ("scores",), patch, notes=notes, facts=facts)


def _catseg(model: Any, size: Size | None) -> Exportable:
    from mmclipdis.export.segmentors import CATSegViews
    from mmclipdis.models.segmentation.catseg.views import CATSegTestSettings

    _refuse_refiners(model)
    aggregator = model.decode_head.aggregator
    return Exportable(
        "segment",
        CATSegViews(model, CATSegTestSettings.from_cfg(model.test_cfg)),
        _probabilities(model, dict(model.test_cfg or {})),
        ("scores",),
        batch=False,  # the windows of its attention are laid for a number of images
        facts=_facts(model.label_rule()),
        settings=lambda: changed(aggregator, chunk_mb=float("inf")),  # no loop in the file
    )


def _refuse_refiners(model: Any) -> None:
    if model.refiners:
        names = ", ".join(type(refiner).__name__ for refiner in model.refiners)
        raise ValueError(
            f"{type(model).__name__} with refiners ({names}) is not exported: a file gives scores, "
            "and these mend them, or the labels made of them, at the size of the photo; export it "
            "without, --cfg-options model.refiners=[]"
        )


def _dclip(model: Any, size: Size | None) -> Exportable:
    from mmclipdis.export.taggers import PooledTokens

    def reference(images: Tensor) -> tuple[Tensor, ...]:
        negative, positive = model.logits(images, model.class_features()).unbind(1)
        return (positive - negative).sigmoid(), positive - negative

    return Exportable(
        "tag",
        PooledTokens(model),
        reference,
        ("scores", "logits"),
        tuple(model.encoder.patch_size),
        facts={"activation": "sigmoid"},
    )


def _zero_shot(model: Any, size: Size | None) -> Exportable:
    from mmclipdis.export.taggers import WholeCosines

    if model.segments is not None:
        raise ValueError(
            "ZeroShotRecognizer with segments is not exported: how many boxes it looks at again "
            "depends on the photo; export it without, --cfg-options model.segments=None, or DCLIP"
        )

    def reference(images: Tensor) -> tuple[Tensor, ...]:
        logits = model.logits(images)
        return model.probabilities(logits), logits

    step = (1, 1) if model.image_size is not None else tuple(model.encoder.patch_size)
    facts = {"activation": model.score}
    program = WholeCosines(model)
    return Exportable("tag", program, reference, ("scores", "logits"), step, facts=facts)


def _fvit(model: Any, size: Size | None) -> Exportable:
    from mmclipdis.export import detectors
    from mmclipdis.export.fvit import ScoredProposals

    kept = model.roi_head.test_cfg
    proposals = model.rpn_head.test_cfg
    program = ScoredProposals(model, _fixed(model, size))
    facts = {
        "proposals_per_level": program.counts(),
        "proposal_nms": {
            "iou_threshold": proposals.nms.iou_threshold,
            "max_per_image": proposals.max_per_img,
            "min_bbox_size": proposals.get("min_bbox_size", -1),
        },
        **_of_detector(kept),
    }
    notes: tuple[str, ...] = (detectors.NMS_LEFT_OUT, detectors.NO_PADDING)
    if model.roi_head.with_mask:
        notes = (*notes, "masks are left out: they are made of the boxes that NMS leaves")
    return Exportable(
        "detect",
        program,
        program.reference,
        ("boxes", "scores", "proposals", "objectness"),
        (model.backbone.patch_size,) * 2,
        batch=False,
        notes=notes,
        facts=facts,
        settings=lambda: detectors.without_text_tower(model),
        settled=program.settled,
    )


def _ovdquo(model: Any, size: Size | None) -> Exportable:
    from mmclipdis.export import detectors, ovdquo

    program = ovdquo.SearchedQueries(model, _fixed(model, size))
    return Exportable(
        "detect",
        program,
        program.reference,
        ("boxes", "scores"),
        (model.backbone.patch_size,) * 2,
        batch=False,
        notes=(detectors.NMS_LEFT_OUT, detectors.NO_PADDING),
        facts=_of_detector(model.test_cfg),
        settings=lambda: ovdquo.levels_of_known_size(model),
        settled=program.settled,
    )


def _fixed(model: Any, size: Size | None) -> Size:
    if size is None:
        raise ValueError(
            f"{type(model).__name__} is exported for images of one size alone, on which the number "
            "of its boxes depends: fix it, --image-size"
        )
    patch = model.backbone.patch_size
    if size[0] % patch or size[1] % patch:
        raise ValueError(
            f"image_size={size} is no multiple of {type(model).__name__}'s patch of {patch} "
            "pixels: choose one"
        )
    return size


def _of_detector(cfg: Any) -> dict[str, Any]:
    return {
        "nms": None if cfg.nms is None else dict(cfg.nms),
        "threshold": cfg.score_thr,
        "max_per_image": cfg.max_per_img,
    }


def _probabilities(
    model: Any, test_cfg: Mapping[str, Any]
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    def reference(images: Tensor) -> tuple[Tensor, ...]:
        with changed(model, test_cfg={**test_cfg, "return_probs": True}):
            samples = model.predict(images)
        return (torch.stack([sample.seg_logits.data for sample in samples]),)

    return reference


def _facts(rule: Any) -> dict[str, Any]:
    """What turns probabilities into labels: see docs/export.md."""
    return {
        "activation": "softmax" if rule.activation is None and rule.bias is None else "sigmoid",
        "background": rule.background_index,
        "threshold": rule.prob_thd,
        "area_threshold": rule.area_thd,
        "no_class": no_class(rule.num_classes),
    }


#: How each class is exported, and what derives from it.
_KINDS: dict[str, Callable[[Any, Size | None], Exportable]] = {
    "OpenVocabSegmentor": _open_vocab,
    "EncoderDecoder": _stock,
    "CATSeg": _catseg,
    "WrappedSegmentor": lambda model, size: exportable(model.segmentor, size),
    "DCLIP": _dclip,
    "ZeroShotRecognizer": _zero_shot,
    "FViT": _fvit,
    "OVDQUO": _ovdquo,
}
