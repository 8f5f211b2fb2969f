"""EVA02-CLIP's image tower (timm's ``Eva`` inside open_clip's ``TimmModel``).

timm runs it at its native size only, and resamples positions with an antialias that the published
results do not have; so the stem stands here again (declip spec 4.4). Everything after it is timm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import open_clip
import timm
import torch
from open_clip.model import _build_vision_tower
from open_clip.timm_model import TimmModel
from timm.layers import RotaryEmbeddingCat, build_rotary_pos_embed
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import Tensor, nn

from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.utils.interpolation import is_symbol

#: timm's EVA-02 trunks of CLIP with pre-norm blocks (the enormous one normalises after them).
TRUNKS = (
    "eva02_base_patch16_clip_224",
    "eva02_large_patch14_clip_224",
    "eva02_large_patch14_clip_336",
)


class EvaViT(ImageTower):
    """An EVA02-CLIP ViT, B/16 or L/14, at any size, square or not.

    Args:
        visual: open_clip's ``TimmModel`` around an EVA-02 trunk whose head projects the CLS token.
        positions: Resampling rule of the position table; ``size`` is that of the published code.

    Raises:
        ValueError: for another kind of trunk: dense readouts are not defined for it.
    """

    def __init__(self, visual: nn.Module, positions: str = "size") -> None:
        check_trunk(visual)
        trunk: Any = visual.trunk
        embed = trunk.patch_embed
        super().__init__(visual, positions, embed.img_size, embed.patch_size, trunk.num_classes)

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the trunk, first to last."""
        return self.visual.trunk.blocks  # type: ignore[no-any-return]

    @property
    def stem(self) -> nn.Module:
        """The patch convolution."""
        return self.visual.trunk.patch_embed.proj  # type: ignore[no-any-return]

    @property
    def position_table(self) -> Tensor:
        """``(1 + N, D)`` at native size, CLS first."""
        return self.visual.trunk.pos_embed[0]  # type: ignore[no-any-return]

    @property
    def cls_token(self) -> Tensor:
        """``(D,)``, still without its position."""
        return self.visual.trunk.cls_token[0, 0]  # type: ignore[no-any-return]

    def patches(self, images: Tensor) -> Tensor:
        """Patch embedding of RGB images ``(B, 3, H, W)``: ``(B, D, h, w)``."""
        patches: Tensor = self.visual.trunk.patch_embed.proj(images)
        # Under autocast the stream starts in the type of the weights, as in timm and EVA-CLIP.
        return patches.to(self.cls_token.dtype)

    def norm_pre(self, tokens: Tensor) -> Tensor:
        """timm's ``norm_pre``, an identity in these trunks, on tokens ``(B, 1 + N, D)``."""
        return self.visual.trunk.norm_pre(tokens)  # type: ignore[no-any-return]

    def norm_post(self, tokens: Tensor) -> Tensor:
        """Final norm of tokens ``(..., D)``."""
        return self.visual.trunk.norm(tokens)  # type: ignore[no-any-return]

    def project(self, tokens: Tensor) -> Tensor:
        """Head of tokens behind the norm ``(..., D)``: ``(..., E)``."""
        return self.visual.trunk.head(tokens)  # type: ignore[no-any-return]

    def joint_parameters(self) -> list[nn.Parameter]:
        """Those of the final norm and the head."""
        trunk = self.visual.trunk
        return [*trunk.norm.parameters(), *trunk.head.parameters()]

    def rope(self, images: Tensor) -> Tensor:
        """Rotary table ``(h*w, 2 d)`` of the patches: every grid spans the positions of training.

        Other than the official code's it also fits grids that are not square.
        """
        rope, grid = self.visual.trunk.rope, self.grid_of(images)
        # an export for any image size has symbols, which no cache can look up
        table = rotary_table.__wrapped__ if is_symbol(*grid) else rotary_table
        return table(grid, rope.dim, rope.ref_feat_shape, rope.temperature, images.device)


@lru_cache(maxsize=16)
def rotary_table(
    grid: tuple[int, int],
    dim: int,
    reference: tuple[int, int],
    temperature: float = 10000.0,
    device: torch.device | None = None,
) -> Tensor:
    """Sine and cosine of 2-D rotary positions, fp32, of the last few grids (declip spec 4.4).

    Args:
        grid: Patches (h, w).
        dim: Width of a head.
        reference: Patches (h, w) that positions are scaled to: row ``y`` lies at ``y r_h / h``.
        temperature: Base of the frequencies.
        device: Where the table lives.

    Returns:
        ``(h*w, 2 dim)``, sine then cosine; its first half turns by rows, its second by columns.
    """
    # An inference tensor in the cache would break the next training step.
    with torch.inference_mode(False), torch.no_grad():
        return torch.cat(
            build_rotary_pos_embed(
                list(grid),
                dim=dim,
                temperature=temperature,
                in_pixels=False,
                ref_feat_shape=list(reference),
                device=device,
            ),
            dim=-1,
        )


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


def build_eva_visual(config: Mapping[str, Any]) -> nn.Module:
    """open_clip's module of the EVA-02 tower of a model config, with random weights.

    Raises:
        ValueError: for another trunk of timm.
    """
    # Weights come from init_cfg; this key would download others.
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    name = vision["timm_model_name"]
    if name not in TRUNKS:
        raise ValueError(
            f"the arch has the image tower {name}, which has no dense readouts; supported are "
            f"OpenAI-style ViTs such as 'ViT-B-16-quickgelu', and {', '.join(TRUNKS)}"
        )
    changes = vision.pop("timm_model_kwargs", None)
    if not changes:
        visual = _build_vision_tower(config["embed_dim"], open_clip.CLIPVisionCfg(**vision))
        return cast(nn.Module, visual)
    if vision.get("timm_proj", "linear"):
        raise ValueError(f"timm_proj={vision.get('timm_proj', 'linear')!r}: EVA-02 needs None")
    pool = vision.get("timm_pool", "avg")
    return ChangedTrunk(
        timm.create_model(name, num_classes=config["embed_dim"], global_pool=pool, **changes)
    )


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
