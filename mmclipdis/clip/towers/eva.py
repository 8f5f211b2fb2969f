"""EVA02-CLIP's image tower (timm's ``Eva`` inside open_clip's ``TimmModel``), and the builders.

timm runs it at its native size only, and resamples positions with an antialias that the published
results do not have; so the stem stands here again (declip spec 4.4). Everything after it is timm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip
import timm
from open_clip.model import _build_vision_tower
from open_clip.timm_model import TimmModel
from timm.layers import RotaryEmbeddingCat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import nn

from mmclipdis.clip.towers.timm_vit import Family, TimmViT, family_of, supported_trunks

#: timm's EVA-02 trunks of CLIP with pre-norm blocks (the enormous one normalises after them).
TRUNKS = (
    "eva02_base_patch16_clip_224",
    "eva02_large_patch14_clip_224",
    "eva02_large_patch14_clip_336",
)


class EvaViT(TimmViT):
    """An EVA02-CLIP ViT, B/16 or L/14, at any size, square or not.

    Its rotary table spans the positions of training on every grid; other than the official code's
    it also fits grids that are not square.

    Args:
        visual: open_clip's ``TimmModel`` around an EVA-02 trunk whose head projects the CLS token.
        positions: Resampling rule of the position table; ``size`` is that of the published code.

    Raises:
        ValueError: for another kind of trunk: dense readouts are not defined for it.
    """

    def __init__(self, visual: nn.Module, positions: str = "size") -> None:
        check_trunk(visual)
        super().__init__(visual, positions)


def check_trunk(visual: Any) -> None:
    """Raise ValueError unless ``visual`` holds an EVA-02 trunk that :class:`EvaViT` can read."""
    trunk = getattr(visual, "trunk", None)
    if not isinstance(trunk, Eva):
        raise ValueError(f"{type(visual).__name__} holds no EVA trunk of timm; take 'EVA02-B-16'")
    rope = trunk.rope
    plain = isinstance(rope, RotaryEmbeddingCat) and not rope.in_pixels and rope.ref_feat_shape
    wrong = {
        f"global_pool={trunk.global_pool!r}": trunk.global_pool != "token",
        "other prefix tokens than CLS": trunk.num_prefix_tokens != 1 or trunk.cls_token is None,
        "no position table for CLS and patches": trunk.pos_embed is None or trunk.no_embed_class,
        "another kind of rotary positions": not plain or not _is_plain(rope),
        "no final norm before pooling": isinstance(trunk.norm, nn.Identity),
        "a norm after pooling": not isinstance(trunk.fc_norm, nn.Identity),
        "a head outside the trunk": trunk.num_classes == 0 or len(getattr(visual, "head", ())) > 0,
        "dropout": trunk.patch_drop is not None
        or any(isinstance(m, nn.Dropout) and m.p > 0 for m in trunk.modules()),
        "another kind of block": not all(map(_is_readable, trunk.blocks)),
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ValueError(
            f"dense readouts are not defined for an EVA tower with {', '.join(found)}; take one "
            "like 'EVA02-B-16'"
        )


def _is_plain(rope: Any) -> bool:
    """Whether positions count from 0, rows first, and turn neighbouring channels."""
    return not rope.rotate_half and rope.grid_offset == 0 and rope.grid_indexing == "ij"


def _is_readable(block: nn.Module) -> bool:
    """Whether the block is pre-norm, with q, k, v apart and no stochastic depth."""
    if not isinstance(block, EvaBlock) or not isinstance(block.attn, EvaAttention):
        return False
    attention = block.attn
    unused = (attention.q_norm, attention.k_norm, block.drop_path1, block.drop_path2)
    return (
        attention.qkv is None
        and attention.gate is None
        and all(isinstance(module, nn.Identity) for module in unused)
    )


def build_timm_visual(config: Mapping[str, Any]) -> tuple[nn.Module, Family]:
    """open_clip's module of the ViT of timm that a model config names, random, and its family.

    Raises:
        ValueError: for a trunk of timm that no family has.
    """
    # Weights come from init_cfg, and the first key would download others; stochastic depth belongs
    # to the training of CLIP, and no training here has it.
    vision = {**config["vision_cfg"], "timm_model_pretrained": False, "timm_drop_path": None}
    name = vision["timm_model_name"]
    family = family_of(name)
    if family is None or (family.name == "EVA-CLIP" and name not in TRUNKS):
        raise ValueError(
            f"the arch has the image tower {name}, which has no dense readouts; supported are "
            f"OpenAI-style ViTs such as 'ViT-B-16-quickgelu', and {supported_trunks()}"
        )
    changes = vision.pop("timm_model_kwargs", None)
    if not changes:
        visual = _build_vision_tower(config["embed_dim"], open_clip.CLIPVisionCfg(**vision))
        return visual, family
    head, pool = vision.get("timm_proj", "linear"), vision.get("timm_pool", "avg")
    if head not in (None, "", "none"):
        raise ValueError(
            f"timm_proj={head!r}: {family.name} needs None (a head inside the trunk), or 'none' "
            "(no head)"
        )
    classes = 0 if head == "none" else config["embed_dim"]
    trunk = timm.create_model(name, num_classes=classes, global_pool=pool, **changes)
    return ChangedTrunk(trunk), family


class ChangedTrunk(TimmModel):  # type: ignore[misc]
    """open_clip's adapter around a ``trunk`` of other layers than timm's model has.

    The adapter of open_clip 3 builds its trunk by name alone; its successor takes
    ``timm_model_kwargs`` too.
    """

    def __init__(self, trunk: Any) -> None:
        nn.Module.__init__(self)
        self.image_size = trunk.patch_embed.img_size
        self.trunk = trunk
        self.head = nn.Sequential()
