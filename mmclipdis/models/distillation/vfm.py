"""Vision foundation models as frozen teachers: what lies together in an image, by its features.

Models and converters of the official files are timm's. Here stand the choices that a teacher's
numbers depend on: which output is the feature map, and how positions are resampled.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from mmclipdis.clip.towers.positions import check_position_rule, resample_positions
from mmclipdis.clip.weights.vfm import VFM, VFMS, load_vfm
from mmclipdis.engine.random_weights import NO_SOURCE, before_use, watch_weights
from mmclipdis.models.backbones import pretrained_source

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

#: What TimmVFM decides itself.
_OWN_KWARGS = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"),
    "features_only",
)


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
        positions: Rule by which the position table is resampled to another grid: ``legacy``,
            ``size``, ``antialias`` or ``bilinear``. None is that of the official code for a name
            of :data:`VFMS`, and ``antialias``, timm's own, for others. Models other than timm's
            ViT and SAM resample their positions themselves.
        precision: ``float32``, ``float16`` or ``bfloat16``, of weights and computation; the
            features are float32. None is float32, or what the caller's autocast says. DeCLIP has
            its teachers in ``float16``.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)`` with the official file or one in
            timm's layout, None or nothing, as in :class:`~mmclipdis.models.backbones.CLIPViT`.

    Attributes:
        patch_size: (height, width) in pixels of one feature.
        num_features: Channels ``Cv`` of the feature map.

    Input of :meth:`forward`: ``(B, 3, H, W)`` RGB with the mean and std of ImageNet taken off,
    whichever model it is (SAM's own are the same).

    Raises:
        ValueError: for an unknown model, position rule or precision, and for arguments that the
            model does not take.

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
    ) -> None:
        super().__init__(init_cfg=dict(init_cfg) if init_cfg else None)
        known = VFMS.get(model)
        self.name = model
        self.features = LastMap(_create(model, known, model_kwargs or {}))
        if positions is not None and _position_table(self.model) is None:
            raise ValueError(
                f"positions={positions!r}: {model!r} has no table of positions that could be "
                "resampled by a rule; leave positions out"
            )
        own_rule = known.positions if known else "antialias"
        self.positions = check_position_rule(positions or own_rule)
        self.dtype = _dtype(precision)
        self.patch_size = _patch_size(self.model)
        self.num_features = int(self.model.num_features)
        self.to(self.dtype or torch.float32).requires_grad_(False)
        self.eval()
        watch_weights(self, "features.model", taken_away=init_cfg is None)

    @property
    def model(self) -> Any:
        """The timm model."""
        return self.features.model

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

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, Cv, h, w)`` of images ``(B, 3, H, W)``, a vector a patch.

        Remainders right and below that do not fill a patch are cut off.

        Raises:
            ValueError: if a side is shorter than a patch.
        """
        patch_h, patch_w = self.patch_size
        grid = (images.shape[-2] // patch_h, images.shape[-1] // patch_w)
        if 0 in grid:
            raise ValueError(
                f"image of {images.shape[-2]} x {images.shape[-1]} px is smaller than one patch of "
                f"{patch_h} x {patch_w} px of {self.name!r}; use larger images"
            )
        before_use(self)
        images = images[..., : grid[0] * patch_h, : grid[1] * patch_w]
        if self.dtype is None:
            return self._features(images, grid)
        with torch.autocast(images.device.type, enabled=False):
            return self._features(images.to(self.dtype), grid).float()

    def _features(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        table = _position_table(self.model)
        if table is None:
            return cast(Tensor, self.features(images))
        native = tuple(self.model.patch_embed.grid_size)
        resampled = _resample(table, native, grid, self.positions)
        # A table of the grid's own size is added as it is, by both of timm's models.
        changed = {"model.pos_embed": resampled}
        return cast(Tensor, torch.func.functional_call(self.features, changed, (images,)))


class LastMap(nn.Module):
    """``forward`` of a timm model that returns its last feature map ``(B, Cv, h, w)``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: Tensor) -> Tensor:
        """The last intermediate, after the final norm (SAM: after the neck)."""
        (features,) = self.model.forward_intermediates(
            images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return cast(Tensor, features)


def _create(name: str, known: VFM | None, model_kwargs: Mapping[str, Any]) -> nn.Module:
    """The timm model without classifier, with random weights, ready for any size."""
    own = sorted(set(model_kwargs) & set(_OWN_KWARGS))
    if own:
        raise ValueError(
            f"model_kwargs must not hold {own}: weights are named by "
            "init_cfg=dict(type='Pretrained', checkpoint=FILE)"
        )
    timm_name = known.timm_name if known else name
    kwargs = {**(known.kwargs if known else {}), **model_kwargs}
    if not timm.is_model(timm_name):
        names = [*VFMS, *timm.list_models()]
        close = difflib.get_close_matches(name, names, n=4, cutoff=0.4)
        raise ValueError(
            f"unknown vision model {name!r}; known: {', '.join(VFMS)} and names of timm"
            + (f"; close: {', '.join(close)}" if close else "")
        )
    try:
        model = timm.create_model(timm_name, pretrained=False, **{"num_classes": 0, **kwargs})
    except TypeError as error:
        raise ValueError(f"model_kwargs={dict(model_kwargs)} of {name!r}: {error}") from error
    if not hasattr(model, "forward_intermediates"):
        raise ValueError(f"timm's {name!r} has no forward_intermediates(); choose another model")
    if isinstance(model, VisionTransformer):
        # Take any size and add the position table as it is: TimmVFM gives the right one.
        model.dynamic_img_size = False  # type: ignore[misc]  # Final is for torch.jit
        model.patch_embed.strict_img_size = False
        model.patch_embed.flatten = True
    return model


def _position_table(model: Any) -> Tensor | None:
    """The learned position table of timm's ViT or SAM; None for models that see to it alone."""
    if not isinstance(model, (VisionTransformer, VisionTransformerSAM)):
        return None
    return cast("Tensor | None", model.pos_embed)


def _resample(table: Tensor, native: tuple[int, ...], grid: tuple[int, int], rule: str) -> Tensor:
    """``(1, prefix + N, D)`` or SAM's ``(1, h, w, D)`` at another grid, in the dtype of before."""
    rows = table.flatten(1, -2)[0].float()
    prefix = len(rows) - native[0] * native[1]
    with_cls = torch.cat([rows[:1], rows[prefix:]])  # resample_positions() expects a CLS row
    patches = resample_positions(with_cls, (native[0], native[1]), grid, rule)[1:]
    if table.ndim == 4:
        return patches.unflatten(0, grid)[None].to(table.dtype)
    return torch.cat([rows[:prefix], patches])[None].to(table.dtype)


def _dtype(precision: str | None) -> torch.dtype | None:
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return None if precision is None else PRECISIONS[precision]


def _patch_size(model: Any) -> tuple[int, int]:
    """(height, width) in pixels of what one feature stands for."""
    if hasattr(model, "patch_embed") and hasattr(model.patch_embed, "patch_size"):
        height, width = model.patch_embed.patch_size
        return int(height), int(width)
    reduction = int(model.feature_info[-1]["reduction"])
    return reduction, reduction
