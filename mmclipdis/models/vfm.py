"""Vision foundation models, frozen: what lies together in an image, by its features.

Models and converters of the official files are timm's. Here stand the choices that a teacher's
numbers depend on: which output is the feature map, how positions are resampled, and what is taken
off the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.clip.towers.last_block import (
    LastBlockParts,
    check_projections,
    check_stitchable,
    finish,
    project,
)
from mmclipdis.clip.towers.positions import check_position_rule
from mmclipdis.clip.towers.vision_model import (
    LastMap,
    channels_of,
    create,
    features_at,
    own_rule,
    patch_size_of,
    position_table,
)
from mmclipdis.clip.weights.vfm import VFMS, load_vfm
from mmclipdis.engine.random_weights import NO_SOURCE, before_use, watch_weights
from mmclipdis.models.backbones import pretrained_source
from mmclipdis.utils.statistics import CLIP, IMAGENET, Statistics, convert

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: What :class:`TimmVFM` can return: its map, or projections of its last block.
FEATURES = ("map", "q", "k", "v", "q+k")


@MODELS.register_module()
class TimmVFM(BaseModule):
    """A frozen vision model: images to their last feature map, at any size, square or not.

    =========  =====================================================================
    model      feature map
    =========  =====================================================================
    DINOv2     last block, final norm, patch tokens (CLS and registers are left out)
    DINO       the same
    SAM        image encoder, after the neck
    any other  timm's last intermediate, normalised
    =========  =====================================================================

    Args:
        model: A name of :data:`~mmclipdis.clip.weights.vfm.VFMS` (``dinov2-B``,
            ``dino-B-8``, ``sam-B``, ...) or any name of timm with ``forward_intermediates``.
        model_kwargs: Arguments of the timm model, such as ``dict(img_size=80, depth=4)``.
        positions: Rule by which the position table is resampled to another grid, a name of
            :mod:`mmclipdis.clip.towers.positions`. None is that of the official code for a name
            of :data:`VFMS` and for timm's names of DINO, MAE, SAM and PE, and ``antialias``, timm's
            own, for others. Models other than timm's ViT, SAM and PE resample their positions
            themselves.
        precision: ``float32``, ``float16`` or ``bfloat16``, of weights and computation; the
            features are float32. None is float32, or what the caller's autocast says. DeCLIP has
            its teachers in ``float16``.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)`` with the official file or one in
            timm's layout, None or nothing, as in :class:`~mmclipdis.models.backbones.CLIPViT`.
        feature: ``map`` as above; ``q``, ``k`` or ``v``, projections of the patches in the last
            block of a ViT, with bias, heads side by side, before any scale; ``q+k`` is their sum.
        input_size: Pixels a side, or (height, width), that images are resized to bilinearly,
            squeezed where the shape differs (ProxyCLIP has SAM at 1024). None takes them as they
            are.
        mean, std: What the model wants taken off its pixels, RGB from 0 to 1. None is that of
            :data:`VFMS`, or timm's for others.

    Attributes:
        patch_size: (height, width) in pixels of one feature, of the input of the model.
        num_features: Channels ``Cv`` of the feature map.
        statistics: The mean and std.

    Input of :meth:`forward`: ``(B, 3, H, W)`` RGB with the mean and std of ImageNet taken off,
    whichever model it is; where the model's own differ, the pixels are converted. For pixels with
    the mean and std of a CLIP there is :meth:`from_clip`. Nothing can tell what was taken off
    pixels: others than ImageNet's (or those told to :meth:`from_clip`) give wrong features.

    Raises:
        ValueError: for an unknown model, position rule, precision or feature, for arguments that
            the model does not take, a feature that it does not have, and a bad size or statistics.

    Source: DeCLIP (CVPR 2025), released code. It resamples the positions of DINO as its hub does,
    ``(size + 0.1) / native`` without antialias, and those of SAM bicubically without antialias.
    """

    _is_init: bool  # mmengine's mark that init_weights() has run

    def __init__(
        self,
        model: str = "dinov2-B",
        model_kwargs: Mapping[str, Any] | None = None,
        positions: str | None = None,
        precision: str | None = None,
        init_cfg: Mapping[str, Any] | None = NO_SOURCE,
        *,
        feature: str = "map",
        input_size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(init_cfg=dict(init_cfg) if init_cfg else None)
        if feature not in FEATURES:
            raise ValueError(f"feature must be one of {', '.join(FEATURES)}, got {feature!r}")
        self.dtype = _dtype(precision)  # what is checked quickly first
        if positions is not None:
            check_position_rule(positions)
        known = VFMS.get(model)
        self.name = model
        self.feature = feature
        self.features = LastMap(create(model, known, model_kwargs or {}))
        if positions is not None and position_table(self.model) is None:
            raise ValueError(
                f"positions={positions!r}: {model!r} has no table of positions that could be "
                "resampled by a rule; leave positions out"
            )
        self.positions = positions or own_rule(self.model, known)
        own = known.statistics if known else _timm_statistics(self.model)
        self.statistics = Statistics(
            own.mean if mean is None else mean, own.std if std is None else std
        )
        self.patch_size = patch_size_of(self.model)
        self.input_size = _input_size(input_size, self.patch_size, model)
        self.num_features = (
            channels_of(self.model)
            if feature == "map"
            else check_projections(self.model, model, f"feature={feature!r}")
        )
        self.to(self.dtype or torch.float32).requires_grad_(False)
        self.eval()
        watch_weights(self, "features.model", taken_away=init_cfg is None)

    @property
    def model(self) -> Any:
        """The timm model."""
        return self.features.model

    @property
    def fixed_grid(self) -> tuple[int, int] | None:
        """Grid (rows, columns) of every map where ``input_size`` is given; else None."""
        if self.input_size is None:
            return None
        return self.input_size[0] // self.patch_size[0], self.input_size[1] // self.patch_size[1]

    def train(self, mode: bool = True) -> TimmVFM:
        """Keep the teacher in evaluation mode, whatever ``mode`` its owner is put in."""
        super().train(False)
        return self

    def init_weights(self) -> None:
        """Load the file that ``init_cfg`` names; without one the weights stay random.

        Raises:
            FileNotFoundError, ValueError: if there is none or it does not fit.
        """
        if self.init_cfg is None or self._is_init:
            return
        load_vfm(self.model, pretrained_source(self.init_cfg, type(self).__name__), self.name)
        self._is_init = True

    @staticmethod
    def from_clip(images: Tensor, given: Statistics = CLIP) -> Tensor:
        """Images of a CLIP, with the statistics ``given``, as :meth:`forward` takes them."""
        return convert(images, given, IMAGENET)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, Cv, h, w)`` of images ``(B, 3, H, W)``, a vector a patch.

        Remainders right and below that do not fill a patch are cut off.

        Raises:
            ValueError: if a side is shorter than a patch, or the model does not take the size.
        """
        if self.feature != "map":
            found = self.last_projections(images, self.feature.replace("+", ""))
            return sum(found[1:], found[0])
        prepared, grid = self._prepare(images)
        with self._precision(images.device.type):
            return _at_least_float32(self._features(prepared, grid))

    @torch.no_grad()
    def last_projections(self, images: Tensor, parts: str = "qkv") -> tuple[Tensor, ...]:
        """Projections ``(B, D, h, w)`` of the patches in the last block, of ``q``, ``k``, ``v``.

        The block has to be one with such projections (:func:`check_projections`).

        Raises:
            ValueError: as :meth:`forward`.
        """
        prepared, grid = self._prepare(images)
        with self._precision(images.device.type):
            tokens = self._features(prepared, grid, before_last=True)
            found = project(self.model.blocks[-1], tokens, parts)
            return tuple(map(_at_least_float32, found))

    @torch.no_grad()
    def last_block_parts(self, images: Tensor) -> LastBlockParts:
        """What the last block starts from, to be stitched and given to :meth:`finish_last_block`.

        Raises:
            ValueError: as :meth:`forward`, and for a model that is no plain ViT of timm.
        """
        check_stitchable(self.model, self.name)
        prepared, grid = self._prepare(images)
        with self._precision(images.device.type):
            tokens = self._features(prepared, grid, before_last=True)
            normed = self.model.norm(tokens.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            found = (normed, *project(self.model.blocks[-1], tokens, "qkv"))
            return LastBlockParts(*map(_at_least_float32, found))

    @torch.no_grad()
    def finish_last_block(self, parts: LastBlockParts) -> Tensor:
        """The map ``(B, D, h, w)`` of the last block on parts of any grid (OV-Stitcher).

        See :func:`mmclipdis.clip.towers.last_block.finish`: it is not :meth:`forward` of one
        window, since CLS is no key, and the final norm stands before the block.

        Raises:
            ValueError: for a model that is no plain ViT of timm.
        """
        check_stitchable(self.model, self.name)
        with self._precision(parts.q.device.type):
            given = (parts.input, parts.q, parts.k, parts.v)
            own = (part.to(self.dtype or part.dtype) for part in given)
            return _at_least_float32(finish(self.model, LastBlockParts(*own)))

    def _prepare(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The images with the model's statistics, at its size, cut to whole patches; the grid."""
        patch_h, patch_w = self.patch_size
        images = convert(images, IMAGENET, self.statistics)
        if self.input_size is not None and images.shape[-2:] != self.input_size:
            images = F.interpolate(
                images, size=self.input_size, mode="bilinear", align_corners=False
            )
        grid = (images.shape[-2] // patch_h, images.shape[-1] // patch_w)
        if 0 in grid:
            raise ValueError(
                f"image of {images.shape[-2]} x {images.shape[-1]} px is smaller than one patch of "
                f"{patch_h} x {patch_w} px of {self.name!r}; use larger images"
            )
        before_use(self)
        images = images[..., : grid[0] * patch_h, : grid[1] * patch_w]
        return images.to(self.dtype or images.dtype), grid

    def _precision(self, device: str) -> AbstractContextManager[Any]:
        """No autocast where the precision is given."""
        return nullcontext() if self.dtype is None else torch.autocast(device, enabled=False)

    def _features(self, images: Tensor, grid: tuple[int, int], before_last: bool = False) -> Tensor:
        try:
            return features_at(self.features, images, grid, self.positions, before_last)
        except AssertionError as error:  # of timm, about sizes
            raise ValueError(
                f"{self.name!r} does not take images of {images.shape[-2]} x {images.shape[-1]} px "
                f"({error}): give input_size or model_kwargs=dict(img_size=...), or choose another "
                "model"
            ) from error


def _timm_statistics(model: Any) -> Statistics:
    """Those that timm notes for the weights; ImageNet's where it notes none."""
    noted = model.pretrained_cfg or {}
    return Statistics(noted.get("mean") or IMAGENET.mean, noted.get("std") or IMAGENET.std)


def _at_least_float32(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _dtype(precision: str | None) -> torch.dtype | None:
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return None if precision is None else PRECISIONS[precision]


def _input_size(value: Any, patch: tuple[int, int], name: str) -> tuple[int, int] | None:
    """(height, width) of whole patches."""
    if value is None:
        return None
    sides = [value, value] if isinstance(value, int) else value
    listed = list(sides) if isinstance(sides, Sequence) and not isinstance(sides, str) else []
    whole = [isinstance(side, int) and not isinstance(side, bool) for side in listed]
    if len(listed) != 2 or not all(whole) or min(listed) < 1:
        raise ValueError(f"input_size must be pixels a side, or (height, width); got {value!r}")
    height, width = listed
    if height % patch[0] or width % patch[1]:
        raise ValueError(
            f"input_size={value!r} is no whole number of patches of {patch[0]} x {patch[1]} px, "
            f"which {name!r} has"
        )
    return height, width
