"""FastViT and ConvNeXt inside open_clip's ``TimmModel``: which archs have one, how it is built."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import open_clip
import timm
from open_clip.model import _build_vision_tower
from open_clip.timm_model import TimmModel
from timm.layers import ClassifierHead, Mlp, NormMlpClassifierHead, to_2tuple
from timm.models.convnext import ConvNeXt
from timm.models.fastvit import FastVit
from torch import nn

from mmclipdis.clip.weights.loading import Arch, model_config

#: How the names of timm's FastViTs and ConvNeXts begin.
TRUNKS = ("fastvit_", "convnext")


def has_stages(arch: Arch) -> bool:
    """Whether ``arch`` has an image tower of stages and an average pool."""
    name = model_config(arch)["vision_cfg"].get("timm_model_name") or ""
    return str(name).startswith(TRUNKS)


def check_stages(visual: Any) -> None:
    """Raise ValueError unless :class:`StageTower` can read ``visual``."""
    trunk = getattr(visual, "trunk", None)
    if not isinstance(trunk, (FastVit, ConvNeXt)) or getattr(trunk, "fork_feat", False):
        raise ValueError(
            f"{type(visual).__name__} holds no FastViT or ConvNeXt of timm with a head; take "
            "'MobileCLIP-S1' or 'convnext_base_w'"
        )
    pool = getattr(trunk.head, "global_pool", None)
    known = isinstance(trunk.head, (ClassifierHead, NormMlpClassifierHead))
    if not known or getattr(pool, "pool_type", None) != "avg":
        raise ValueError(
            f"the tower's head is a {type(trunk.head).__name__} with the pool "
            f"{getattr(pool, 'pool_type', None)!r}: a map at every location is defined for the "
            "average of the locations alone (timm_pool='avg')"
        )


def build_stage_visual(arch: Arch) -> nn.Module:
    """open_clip's module of a FastViT or ConvNeXt, with random weights; nothing is downloaded.

    Args:
        arch: As in :func:`mmclipdis.clip.towers.stages.build_stage_tower`.

    Raises:
        ValueError: for an unknown name or an arch with another kind of tower.
    """
    config = model_config(arch)
    if not has_stages(config):
        raise ValueError(
            f"arch {arch!r} has no FastViT or ConvNeXt: use the backbone CLIPViT for it "
            "(CLIPResNet for 'RN50' and its like), or an arch such as 'MobileCLIP-S1'"
        )
    # Weights come from init_cfg; this key would download others.
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    changes = vision.pop("timm_model_kwargs", None)
    if changes:
        return ChangedStages(config["embed_dim"], vision, changes)
    visual = _build_vision_tower(config["embed_dim"], open_clip.CLIPVisionCfg(**vision))
    return cast(nn.Module, visual)


class ChangedStages(TimmModel):  # type: ignore[misc]
    """open_clip's adapter around a trunk of other layers than timm's model of the name has.

    Args:
        embed_dim: Channels of the joint space.
        vision: A ``vision_cfg`` without ``timm_model_kwargs``.
        changes: Arguments of the trunk, such as its depths and widths.
    """

    def __init__(
        self, embed_dim: int, vision: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> None:
        nn.Module.__init__(self)
        proj = vision.get("timm_proj", "linear")
        self.image_size = to_2tuple(vision.get("image_size", 224))
        name, classes = vision["timm_model_name"], 0 if proj else embed_dim
        trunk: Any = timm.create_model(name, num_classes=classes, global_pool="avg", **changes)
        self.trunk = trunk
        width, layers = int(trunk.num_features), OrderedDict[str, nn.Module]()
        if proj == "mlp":
            layers["mlp"] = Mlp(width, 2 * embed_dim, embed_dim, bias=(True, False))
        elif proj:
            layers["drop"] = nn.Dropout(vision.get("timm_drop", 0.0))
            layers["proj"] = nn.Linear(width, embed_dim, bias=False)
        self.head = nn.Sequential(layers)
