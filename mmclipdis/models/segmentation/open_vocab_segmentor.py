"""Training-free open-vocabulary segmentation: dense CLIP features against class names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.weights.arch_mark import check_arch
from mmclipdis.models.segmentation.encoding import encode_windows
from mmclipdis.models.segmentation.prediction import LabelRule, WindowScores
from mmclipdis.models.segmentation.settings import OpenVocabTestSettings
from mmclipdis.models.segmentation.stitching import (
    check_stitching,
    stitched_maps,
    whole_patches,
)
from mmclipdis.models.segmentation.surgery import check_image_embedding
from mmclipdis.models.segmentation.token_stitching import build_mixer, token_maps
from mmclipdis.models.segmentation.window_segmentor import WindowSegmentor, refuse_pretrained
from mmclipdis.models.segmentation.windows import NO_PADDING, one_window
from mmclipdis.models.unsaved import SharesUnsaved, leave_out_of_checkpoints


@MODELS.register_module()
class OpenVocabSegmentor(SharesUnsaved, WindowSegmentor):
    """A backbone with a dense map in CLIP's joint space and a head that compares it with names.

    Order of operations (ClearCLIP, the published one): windows -> padding to whole patches ->
    features -> cosines -> bilinear to the window -> padding off -> mean over windows -> bilinear
    to the photo -> x logit_scale -> softmax over queries -> best synonym of each class -> argmax
    -> background below the threshold. From the cosine on in float32.

    Different from the reference: windows of an image and of several images are encoded in batches;
    the last three steps run over chunks of classes, so memory grows with pixels and not with
    classes x pixels; probabilities are only stored when ``test_cfg.return_probs`` asks for them;
    images of a batch may differ in size. ``mode='whole'`` is no window: the cosines go bilinearly
    from the patches to the photo in one step, as in the released codes of ClearCLIP and SCLIP.

    Args:
        backbone: config of a backbone whose last output is the dense map, e.g. ``ClearCLIPViT``.
        decode_head: config of a :class:`CosineSegHead`.
        data_preprocessor: as in mmseg; RGB, with the backbone's mean and std.
        train_cfg: kept for mmseg's tools; passed on to the head.
        test_cfg: see :class:`~mmclipdis.models.segmentation.settings.OpenVocabTestSettings`.
        init_cfg: as in mmseg.
        refiners: as in :class:`~mmclipdis.models.segmentation.window_segmentor.WindowSegmentor`:
            cosines are refined at the size of the photo, labels behind the threshold.
        pretrained: None, which mmseg's tools write; the backbone's ``init_cfg`` names weights.
        masks: where the masks of a photo come from; see
            :class:`~mmclipdis.models.segmentation.window_segmentor.WindowSegmentor`.
        token_mixer: config of what mixes the tokens of a whole image before the head, such as
            ``dict(type='SAMMatrix', ...)``; it needs ``test_cfg.stitch='tokens'``. It is frozen and
            not in checkpoints.

    Raises:
        ValueError: ``pretrained`` is not None, bad ``test_cfg``, a backbone without
            ``patch_size`` or without the image embedding that the head needs, a head with a
            projector of another CLIP than the backbone's, stitching that backbone or head cannot,
            or a ``token_mixer`` without stitched tokens.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        data_preprocessor: Mapping[str, Any] | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        pretrained: None = None,
        masks: Any = None,
        refiners: Sequence[Any] | None = None,
        token_mixer: Any = None,
    ) -> None:
        refuse_pretrained(pretrained, type(self).__name__, "backbone")
        super().__init__(data_preprocessor, init_cfg, refiners, masks)
        self.backbone = MODELS.build(backbone)
        if not hasattr(self.backbone, "patch_size"):
            raise ValueError(
                f"backbone {type(self.backbone).__name__} has no patch_size: OpenVocabSegmentor "
                "needs CLIP's dense map, as of type='ClearCLIPViT'"
            )
        self.decode_head = MODELS.build(decode_head)
        self._check_projector()
        if getattr(self.decode_head, "needs_cls", False):
            check_image_embedding(self.backbone)
        self.token_mixer: Any = None
        if token_mixer is not None:
            self.token_mixer = build_mixer(token_mixer)
            leave_out_of_checkpoints(self, ("token_mixer",))
        self.align_corners = self.decode_head.align_corners
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
        self._settings()  # a bad test_cfg must fail here, not after the model has been loaded

    @property
    def named_part(self) -> Any:
        """The head."""
        return self.decode_head

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes in use, if known."""
        return self.decode_head.vocabulary  # type: ignore[no-any-return]

    @property
    def follow_dataset(self) -> bool:
        """Whether the classes are those of the data set in use."""
        return bool(self.decode_head.follow_dataset)

    @property
    def num_classes(self) -> int | None:
        """Number of classes C, if known."""
        return self.decode_head.num_classes  # type: ignore[no-any-return]

    def set_vocabulary(self, vocabulary: Any) -> None:
        """Change the classes of the live model; see :meth:`CosineSegHead.set_vocabulary`."""
        self.decode_head.set_vocabulary(vocabulary)

    def extract_feat(self, inputs: Tensor, masks: Tensor | None = None) -> tuple[Tensor, ...]:
        """Backbone outputs of normalised images (B, 3, H, W); the last is the dense map.

        ``masks`` int64 (B, H, W) are for a backbone that ``needs_masks``. With a ``token_mixer``
        the only one is the dense map of each image as one window.
        """
        if self.token_mixer is not None:
            count, layout = len(inputs), one_window((inputs.shape[-2], inputs.shape[-1]))
            each = [layout] * count, count, [NO_PADDING] * count
            return (torch.cat(self._token_maps(self.backbone, inputs, *each, masks)),)
        return tuple(self.backbone(inputs) if masks is None else self.backbone(inputs, masks=masks))

    def encode_decode(self, inputs: Tensor, batch_data_samples: Sequence[SegDataSample]) -> Tensor:
        """Class probabilities (B, C, H, W) at input size, whole images, as one tensor."""
        self._refuse_refiners("encode_decode")
        size = {"img_shape": torch.Size(inputs.shape[-2:])}
        return self.decode_head.predict(  # type: ignore[no-any-return]
            self.extract_feat(inputs), [size] * len(inputs), self.test_cfg
        )

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Losses of the head, prefixed ``decode.``; only a trainable backbone learns from them."""
        features = self.extract_feat(inputs)
        losses = self.decode_head.loss(features, data_samples, self.train_cfg)
        return {f"decode.{name}": value for name, value in losses.items()}

    def label_rule(self) -> LabelRule:
        """How the query scores of the windows become labels; the head's."""
        return self.decode_head.rule()  # type: ignore[no-any-return]

    def window_scores(
        self, images: Sequence[Tensor], masks: Sequence[Tensor] | None = None
    ) -> list[WindowScores]:
        """Logits of all windows of all ``images``, each (3, H, W), at patch resolution.

        ``masks`` (H, W) of each image reach a backbone that ``needs_masks``.

        Raises:
            ValueError: a window smaller than a patch, or a projector that was trained on a CLIP
                with other weights.
        """
        settings = self._settings()
        projector = getattr(self.decode_head, "projector", None)
        if projector is not None and not self.decode_head.any_arch:
            projector.belong_to(self.backbone)  # only now it surely holds its weights
        layouts = [settings.windows((image.shape[-2], image.shape[-1])) for image in images]
        patch_size = whole_patches(self.backbone)
        paddings = [settings.padding(layout.crop, patch_size) for layout in layouts]
        batch = settings.window_batch_size
        read = masks if self.scores_need_masks else None
        if settings.stitch == "scores":
            maps = encode_windows(images, layouts, self._logits, batch, paddings, read)
        else:
            maps_of = stitched_maps if settings.stitch == "values" else self._token_maps
            dense = maps_of(self.backbone, images, layouts, batch, paddings, read)
            maps = [self.decode_head((image,)) for image in dense]
            layouts = [one_window(layout.size) for layout in layouts]
        maps = [self.decode_head.normalized(windows) for windows in maps]
        whole = settings.mode == "whole" or settings.stitch == "tokens"
        return [
            WindowScores(*parts, is_whole=whole)
            for parts in zip(maps, layouts, paddings, strict=True)
        ]

    def _forward(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> Tensor:
        """Query logits (B, Q, h, w) on the patch grid, no post-processing (``mode='tensor'``)."""
        return self._logits(inputs)

    def _logits(self, inputs: Tensor, masks: Tensor | None = None) -> Tensor:
        if not getattr(self.decode_head, "needs_cls", False):
            return self.decode_head(self.extract_feat(inputs, masks))  # type: ignore[no-any-return]
        scope = {} if masks is None else {"masks": masks}
        features = self.backbone.dense(inputs, with_cls=True, **scope)
        return self.decode_head.scores(features.map, features.cls)  # type: ignore[no-any-return]

    @property
    def _token_maps(self) -> Callable[..., list[Tensor]]:
        return partial(token_maps, mixer=self.token_mixer)

    def _check_projector(self) -> None:
        projector = getattr(self.decode_head, "projector", None)
        if projector is not None and not self.decode_head.any_arch:
            arch = getattr(self.backbone, "arch", None)
            check_arch(projector.arch, arch, "the head's projector")

    def _settings(self) -> OpenVocabTestSettings:
        """Read ``test_cfg`` anew: tools change it after the model was built."""
        settings = OpenVocabTestSettings.from_cfg(self.test_cfg)
        settings.check_patch(tuple(self.backbone.patch_size))
        if settings.stitch != "scores":
            check_stitching(self.backbone, self.decode_head, settings.stitch)
        if self.token_mixer is not None and settings.stitch != "tokens":
            raise ValueError(
                f"token_mixer={type(self.token_mixer).__name__} mixes the tokens of a whole image, "
                f"and test_cfg.stitch={settings.stitch!r}: set test_cfg.stitch='tokens', or leave "
                "token_mixer out"
            )
        return settings
