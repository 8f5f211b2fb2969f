"""FastViT and ConvNeXt inside open_clip's ``TimmModel``: which archs have one, how it is built."""

from __future__ import annotations

from typing import Any

from timm.layers import ClassifierHead, NormMlpClassifierHead
from timm.models.convnext import ConvNeXt
from timm.models.fastvit import FastVit
from torch import nn

from mmclipdis.clip.towers.timm_adapter import build_timm_visual
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
    return build_timm_visual(config)
