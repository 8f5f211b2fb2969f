"""ViTs of timm with a text tower: EVA-CLIP, SigLIP, PE, TIPS, DINO, MobileCLIP-B, ViTamin.

timm runs most of them at their native size only, or resamples positions by a rule that is not
their own; so the stem stands here again. Everything after it is timm's. How a family differs from
another are fields of :class:`Family`; what its trunk is made of, the trunk itself says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, cast

import torch
from timm.layers import Attention, AttentionPoolLatent, AttentionRope, HybridEmbed
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mmclipdis.clip.towers.blocks import TIMM_BLOCKS
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.towers.pools import CLS_POOL, MapPool, MeanPool, Pool
from mmclipdis.clip.towers.rotary import is_known, rotary_of
from mmclipdis.clip.towers.timm_adapter import build_timm_visual


@dataclass(frozen=True)
class Family:
    """Trunks of timm that one paper published.

    Attributes:
        name: As users know it.
        pattern: Of timm's names of its trunks.
        positions: Rule by which its own code resamples its position table (encoders spec 2.4).
        arch: An arch that has it, for messages.
    """

    name: str
    pattern: str
    positions: str
    arch: str


FAMILIES = (
    # not the enormous one, which normalises after its blocks
    Family("EVA-CLIP", "eva02_base_patch16_clip_*", "size", "EVA02-B-16"),
    Family("EVA-CLIP", "eva02_large_patch14_clip_*", "size", "EVA02-L-14"),
    Family("SigLIP", "vit_*_siglip_*", "size", "ViT-B-16-SigLIP2"),
    Family("PE", "vit_pe_core_*", "bilinear", "PE-Core-B-16"),
    Family("MobileCLIP", "vit_base_mci_224", "size", "MobileCLIP-B"),
    Family("MobileCLIP", "vit_large_patch14_clip_224", "size", "MobileCLIP2-L-14"),
    Family("ViTamin", "vitamin_*", "size", "ViTamin-B"),
    Family("TIPS", "vit_*_tipsv2*", "antialias", "TIPSv2-B-14"),
    Family("DINOv3", "vit_*_dinov3*", "antialias", "dinotxt-v3-L-16"),
    Family("DINOv2", "vit_*_dinov2*", "antialias", "dinotxt-v2-L-14"),
)


def family_of(timm_name: str) -> Family | None:
    """The family of a trunk of timm, or None."""
    name = timm_name.split(".")[0]
    return next((family for family in FAMILIES if fnmatch(name, family.pattern)), None)


class TimmViT(ImageTower):
    """A ViT of timm inside open_clip's ``TimmModel``, at any size, square or not.

    Args:
        visual: open_clip's ``TimmModel`` around the trunk, with what follows it as ``head``.
        positions: Resampling rule of the position table, see
            :mod:`mmclipdis.clip.towers.positions`.

    Raises:
        ValueError: for a trunk of other blocks or another pool: dense readouts are not defined for
            it.
    """

    def __init__(self, visual: nn.Module, positions: str = "size") -> None:
        trunk: Any = visual.trunk
        check_trunk(trunk)
        embed = trunk.patch_embed
        ratio = embed.feat_ratio(as_scalar=False)  # a stem's patch_size may be that of its output
        embed_dim = _channels(visual, trunk)
        prefix = int(trunk.num_prefix_tokens)
        super().__init__(
            visual, positions, embed.img_size, ratio, embed_dim, trunk.embed_dim, prefix,
            _pool_of(trunk),
        )  # fmt: skip
        self.table_prefix = 0 if trunk.no_embed_class else prefix

    @property
    def trunk(self) -> Any:
        """timm's model."""
        return self.visual.trunk

    @property
    def blocks(self) -> Any:
        """The blocks of the trunk, first to last."""
        return self.trunk.blocks

    @property
    def stem(self) -> nn.Module:
        """What images enter by."""
        embed = self.trunk.patch_embed
        return cast(nn.Module, getattr(embed, "backbone", embed.proj))

    @property
    def position_table(self) -> Tensor | None:
        """See ``ImageTower``."""
        table = self.trunk.pos_embed
        return None if table is None else table[0]

    @property
    def prefix_tokens(self) -> Tensor:
        """CLS, then registers, still without their positions."""
        parts = [self.trunk.cls_token, getattr(self.trunk, "reg_token", None)]
        found = [part[0] for part in parts if part is not None]
        if not found:
            empty: Tensor = self.trunk.blocks[0].norm1.weight.new_empty(0, self.width)
            return empty
        return found[0] if len(found) == 1 else torch.cat(found)

    @property
    def attn_pool(self) -> Any:
        """timm's ``AttentionPoolLatent``, for :class:`~mmclipdis.clip.towers.pools.MapPool`."""
        return self.trunk.attn_pool

    def patches(self, images: Tensor) -> Tensor:
        """Patch embedding of RGB images ``(B, 3, H, W)``: ``(B, D, h, w)``."""
        embed = self.trunk.patch_embed
        if isinstance(embed, HybridEmbed):  # several convolutions: remainders would count
            height, width = (
                n * side for n, side in zip(self.grid_of(images), self.patch_size, strict=True)
            )
            images = embed.backbone(images[..., :height, :width])
            images = images[-1] if isinstance(images, (list, tuple)) else images
        patches: Tensor = embed.proj(images)
        # Under autocast the stream starts in the type of the weights, as in timm and EVA-CLIP.
        return patches.to(self.trunk.blocks[0].norm1.weight.dtype)

    def norm_pre(self, tokens: Tensor) -> Tensor:
        """timm's ``norm_pre``, an identity in most trunks, on tokens ``(B, p + N, D)``."""
        return self.trunk.norm_pre(tokens)  # type: ignore[no-any-return]

    def norm_post(self, tokens: Tensor) -> Tensor:
        """Final norm of tokens ``(..., D)``, wherever the trunk has it."""
        return self.trunk.fc_norm(self.trunk.norm(tokens))  # type: ignore[no-any-return]

    def head(self, tokens: Tensor) -> Tensor:
        """What follows the pool, ``(..., C)`` to ``(..., E)``: an identity for SigLIP and TIPS."""
        return self.visual.head(self.trunk.head(tokens))  # type: ignore[no-any-return]

    def joint_parameters(self) -> list[nn.Parameter]:
        """Those of the final norm, the pool and the head."""
        trunk = self.trunk
        modules = (trunk.norm, trunk.fc_norm, trunk.attn_pool, trunk.head, self.visual.head)
        return [p for module in modules if module is not None for p in module.parameters()]

    def rope(self, images: Tensor) -> Tensor | None:
        """Rotary table ``(h*w, 2 d)`` of the patches, by the trunk's own rule; or None."""
        rope = getattr(self.trunk, "rope", None)
        return None if rope is None else rotary_of(rope, self.grid_of(images), images.device)


def _pool_of(trunk: Any) -> Pool:
    """How the trunk's tokens become an image embedding."""
    if trunk.attn_pool is not None:
        return MapPool()
    return MeanPool() if trunk.global_pool == "avg" else CLS_POOL


def _channels(visual: Any, trunk: Any) -> int:
    """Channels of the joint space."""
    linear = [m for m in visual.head.modules() if isinstance(m, nn.Linear)]
    if linear:
        return int(linear[-1].out_features)
    return int(trunk.num_classes or trunk.embed_dim)


def check_trunk(trunk: Any) -> None:
    """Raise ValueError unless :class:`TimmViT` can read a trunk, naming what it cannot."""
    if not isinstance(trunk, (VisionTransformer, Eva)):
        raise ValueError(
            f"{type(trunk).__name__} is no ViT of timm; take an arch such as 'ViT-B-16-SigLIP2'"
        )
    pool, attention_pool = trunk.global_pool, trunk.attn_pool
    mean = pool == "avg"
    wrong = {
        f"global_pool={pool!r}": pool not in ("", "token", "map", "avg"),
        "another attention pool": attention_pool is not None and not _is_plain_pool(attention_pool),
        "a pool that leaves prefix tokens out": attention_pool is not None
        and bool(trunk.num_prefix_tokens)
        and not getattr(trunk, "pool_include_prefix", True),
        "no CLS token": pool in ("", "token") and trunk.cls_token is None,
        "no final norm": isinstance(trunk.norm, nn.Identity) and not mean,
        "a norm before the mean": mean and not isinstance(trunk.norm, nn.Identity),
        "dropout": (
            getattr(trunk, "patch_drop", None) is not None
            and not isinstance(trunk.patch_drop, nn.Identity)
        )
        or any(isinstance(m, nn.Dropout) and m.p > 0 for m in trunk.modules()),
        "another kind of rotary positions": isinstance(trunk, Eva) and not is_known(trunk.rope),
        "another kind of block": not all(map(_is_readable, trunk.blocks)),
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ValueError(
            f"dense readouts are not defined for a ViT of timm with {', '.join(found)}; take one "
            "like that of 'ViT-B-16-SigLIP2' or 'EVA02-B-16'"
        )


def _is_plain_pool(pool: Any) -> bool:
    """One learned query over all tokens, with k and v of the same rows."""
    return (
        isinstance(pool, AttentionPoolLatent)
        and pool.latent_len == 1
        and pool.pos_embed is None
        and pool.mlp is not None
    )


def _is_readable(block: nn.Module) -> bool:
    """Whether a block is pre-norm, with ordinary heads and no gate or stochastic depth."""
    attention = getattr(block, "attn", None)
    if type(block) not in TIMM_BLOCKS:
        return False
    if not isinstance(attention, (Attention, AttentionRope, EvaAttention)):
        return False
    paths = (block.drop_path1, block.drop_path2)
    return (
        attention.gate is None
        and getattr(attention, "num_kv_groups", 1) == 1
        and all(isinstance(path, nn.Identity) for path in paths)
    )


def build_timm_vit(config: Mapping[str, Any], positions: str | None = None) -> TimmViT:
    """The tower of a model config whose image side is a ViT of timm, with random weights.

    Args:
        config: A model config.
        positions: As in :class:`TimmViT`; None is the rule of the family.

    Raises:
        ValueError: for a trunk that no family has, or that cannot be read.
    """
    name = config["vision_cfg"]["timm_model_name"]
    family = family_of(name)
    if family is None:
        known = {family.name: family.arch for family in reversed(FAMILIES)}
        raise ValueError(
            f"the arch has the image tower {name}, which has no dense readouts; supported are "
            "OpenAI-style ViTs such as 'ViT-B-16-quickgelu', and "
            + ", ".join(f"{name} ({arch!r})" for name, arch in reversed(known.items()))
        )
    # stochastic depth belongs to the training of CLIP, and no training here has it
    visual = build_timm_visual(config, timm_drop_path=None)
    return TimmViT(visual, family.positions if positions is None else positions)
