"""open_clip's ``TimmModel`` around a trunk of timm, with random weights and layers as asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import open_clip
import timm
from open_clip.model import _build_vision_tower
from open_clip.timm_model import TimmModel
from timm.layers import Mlp, to_2tuple
from torch import nn


def build_timm_visual(config: Mapping[str, Any], **vision: Any) -> nn.Module:
    """The image module of a model config with a ``timm_model_name``; nothing is downloaded.

    Args:
        config: A model config. Its ``vision_cfg`` may change the layers of the trunk by
            ``timm_model_kwargs``.
        vision: Other fields of ``vision_cfg`` than it has.
    """
    # Weights come from init_cfg; this key would download others.
    vision = {**config["vision_cfg"], "timm_model_pretrained": False, **vision}
    changes = vision.pop("timm_model_kwargs", None)
    if changes:
        return ChangedTrunk(config["embed_dim"], vision, changes)
    visual = _build_vision_tower(config["embed_dim"], open_clip.CLIPVisionCfg(**vision))
    return cast(nn.Module, visual)


class ChangedTrunk(TimmModel):  # type: ignore[misc]
    """open_clip's adapter around a trunk of other layers than timm's model of the name has.

    The adapter of open_clip 3 builds its trunk by name alone; its successor takes
    ``timm_model_kwargs`` too.

    Args:
        embed_dim: Channels of the joint space.
        vision: A ``vision_cfg`` without ``timm_model_kwargs``.
        changes: Arguments of the trunk, such as its depth and width.
    """

    def __init__(
        self, embed_dim: int, vision: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> None:
        nn.Module.__init__(self)
        name, head = vision["timm_model_name"], vision.get("timm_proj", "linear")
        pool = vision.get("timm_pool", "avg")
        options = dict(global_pool=pool) if pool else {}
        classes = 0 if head else embed_dim
        trunk: Any = timm.create_model(name, num_classes=classes, **options, **changes)
        self.image_size = to_2tuple(vision.get("image_size", 224))
        if hasattr(trunk, "patch_embed"):
            self.image_size = getattr(trunk.patch_embed, "img_size", self.image_size)
        self.trunk = trunk
        width, layers = int(trunk.num_features), OrderedDict[str, nn.Module]()
        if head == "mlp":
            layers["mlp"] = Mlp(width, 2 * embed_dim, embed_dim, bias=(True, False))
        elif head == "linear":
            layers["drop"] = nn.Dropout(vision.get("timm_drop", 0.0))
            layers["proj"] = nn.Linear(width, embed_dim, bias=False)
        self.head = nn.Sequential(layers)
