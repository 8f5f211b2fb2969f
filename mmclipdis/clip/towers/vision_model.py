"""Models of timm whose maps are taken at any size: which output, and whose positions.

timm resamples the positions of all its models in one way. Those of the official code are given
from outside: a table that is resampled by a named rule, and for the Perception Encoder (PE), whose
rotary positions count on where the grid is larger, their angles as well.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any, cast

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from mmclipdis.clip.towers.positions import resample_positions
from mmclipdis.clip.towers.rotary import rotary_of
from mmclipdis.clip.weights.vfm import VFM, VFMS

#: How timm's names of the Perception Encoder start.
_PE = "vit_pe_"
#: Rules of the official code by timm's tags of weights, of any size of model.
_RULES = {"dino": "legacy", "mae": "size", "sa1b": "size"}
#: What is decided elsewhere.
_OWN_KWARGS = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"),
    "features_only",
)


class LastMap(nn.Module):
    """``forward`` of a timm model that returns its last feature map ``(B, Cv, h, w)``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: Tensor, before_last: bool = False) -> Tensor:
        """The last intermediate, after the final norm (SAM: after the neck).

        Args:
            images: ``(B, 3, H, W)`` as the model takes them.
            before_last: Take the patches of the last block's *input* as they are instead.
        """
        chosen: dict[str, Any] = dict(indices=1, norm=True)
        if before_last:
            chosen = dict(indices=[len(self.model.blocks) - 2], norm=False, stop_early=True)
        (features,) = self.model.forward_intermediates(
            images, **chosen, output_fmt="NCHW", intermediates_only=True
        )
        return cast(Tensor, features)


def create(name: str, known: VFM | None, model_kwargs: Mapping[str, Any]) -> Any:
    """The timm model without classifier, with random weights, ready for any size.

    Args:
        name: What the user calls it.
        known: Its entry in :data:`VFMS`, if it has one.
        model_kwargs: Arguments of the timm model.

    Raises:
        ValueError: there is no such model, it does not take these arguments, or has no map.
    """
    own = sorted(set(model_kwargs) & set(_OWN_KWARGS))
    if own:
        raise ValueError(
            f"model_kwargs must not hold {own}: weights are named by "
            "init_cfg=dict(type='Pretrained', checkpoint=FILE)"
        )
    timm_name = known.timm_name if known else name
    _check_name(name, timm_name, known is not None)
    kwargs: dict[str, Any] = {**(known.kwargs if known else {}), **model_kwargs}
    if timm_name.startswith(_PE):
        kwargs["dynamic_img_size"] = False
    elif timm.models.is_model_in_modules(timm_name, ("eva",)):
        kwargs.setdefault("dynamic_img_size", True)
    try:
        model: Any = timm.create_model(timm_name, pretrained=False, **{"num_classes": 0, **kwargs})
    except (TypeError, AssertionError) as error:
        raise ValueError(f"model_kwargs={dict(model_kwargs)} of {name!r}: {error}") from error
    if not hasattr(model, "forward_intermediates"):
        raise ValueError(f"timm's {name!r} has no forward_intermediates(); choose another model")
    if isinstance(model, VisionTransformer) or _is_pe(model):
        # Take any size and add the position table as it is: the right one is given.
        model.dynamic_img_size = False
        model.patch_embed.strict_img_size = False
        model.patch_embed.flatten = True
    return model


def position_table(model: Any) -> Tensor | None:
    """The learned position table that is resampled here; None for models that see to it alone."""
    if isinstance(model, (VisionTransformer, VisionTransformerSAM)) or _is_pe(model):
        return cast("Tensor | None", model.pos_embed)
    return None


def own_rule(model: Any, known: VFM | None) -> str:
    """By which rule the positions of a model are resampled where nobody names another."""
    if known:
        return known.positions
    if _is_pe(model):
        return "bilinear"
    return _RULES.get(str((model.pretrained_cfg or {}).get("tag")), "antialias")


def features_at(
    features: LastMap, images: Tensor, grid: tuple[int, int], rule: str, before_last: bool = False
) -> Tensor:
    """The map of images that fill a grid of patches, the positions resampled by a rule."""
    table = position_table(features.model)
    if table is None:
        return cast(Tensor, features(images, before_last))
    native = tuple(features.model.patch_embed.grid_size)
    # A table of the grid's own size is added as it is, by both of timm's models.
    changed = {"model.pos_embed": _resample(table, native, grid, rule)}
    if _is_pe(features.model):
        rope = features.model.rope
        angles = rotary_of(rope, grid, rope.pos_embed.device)
        changed["model.rope.pos_embed"] = angles.to(rope.pos_embed.dtype)
    return cast(Tensor, torch.func.functional_call(features, changed, (images, before_last)))


def patch_size_of(model: Any) -> tuple[int, int]:
    """(height, width) in pixels of what one feature of the last map stands for."""
    reduction = int(model.feature_info[-1]["reduction"])
    embed: Any = getattr(model, "patch_embed", None)
    if hasattr(embed, "feat_ratio"):
        height, width = embed.feat_ratio(as_scalar=False)
        if max(height, width) == reduction:  # no later stage is smaller
            return int(height), int(width)
    return reduction, reduction


def channels_of(model: Any) -> int:
    """Channels of the last map; ``num_features`` of timm may be those of the classifier."""
    if isinstance(model, VisionTransformerSAM):  # whose map is that of the neck
        return int(model.num_features)
    return int(model.feature_info[-1]["num_chs"])


def _is_pe(model: Any) -> bool:
    name = (model.pretrained_cfg or {}).get("architecture", "")
    return isinstance(model, Eva) and str(name).startswith(_PE)


def _check_name(name: str, timm_name: str, is_known: bool) -> None:
    if fnmatch(timm_name, "vit_*_radio_*"):
        raise ValueError(
            f"timm's {name!r} resamples positions by another rule than RADIO does; choose "
            f"{'naflex' + timm_name!r}"
        )
    if timm.is_model(timm_name):
        return
    if is_known:
        raise ValueError(
            f"timm {timm.__version__} does not have {timm_name!r}, which {name!r} is: install a "
            "later timm, or choose another model"
        )
    close = difflib.get_close_matches(name, [*VFMS, *timm.list_models()], n=4, cutoff=0.4)
    raise ValueError(
        f"unknown vision model {name!r}; known: {', '.join(VFMS)} and names of timm"
        + (f"; close: {', '.join(close)}" if close else "")
    )


def _resample(table: Tensor, native: tuple[int, ...], grid: tuple[int, int], rule: str) -> Tensor:
    """``(1, prefix + N, D)`` or SAM's ``(1, h, w, D)`` at another grid, in the dtype of before."""
    rows = table.flatten(1, -2)[0].float()
    prefix = len(rows) - native[0] * native[1]
    resampled = resample_positions(rows, (native[0], native[1]), grid, rule, prefix)
    if table.ndim == 4:
        return resampled.reshape(1, *grid, -1).to(table.dtype)
    return resampled[None].to(table.dtype)
