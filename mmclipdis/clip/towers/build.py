"""open_clip's towers behind one protocol: the OpenAI-style ViT, and the builders.

open_clip cannot run its ViT at another size than the one it was built for (it adds the position
table as it is), so the stem stands here again; everything after it is open_clip's own modules.
"""

from __future__ import annotations

from typing import Any

import open_clip
from open_clip.model import _build_text_tower, _build_vision_tower
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from mmclipdis.clip.text.house_text import HOUSE_KEYS, TipsText, build_house_text
from mmclipdis.clip.towers.blocks import has_plain_attention
from mmclipdis.clip.towers.dinotxt import DinoTxtViT, build_dinotxt_visual
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.towers.pools import CLS_POOL, MeanPool
from mmclipdis.clip.towers.stage_trunks import has_stages
from mmclipdis.clip.towers.timm_vit import build_timm_vit
from mmclipdis.clip.weights.loading import Arch, is_resnet, model_config


class OpenCLIPViT(ImageTower):
    """An OpenAI, LAION, MetaCLIP or CLIPA ViT held by open_clip, at any size, square or not.

    Args:
        visual: open_clip's vision transformer (``ln_post``, ``proj``): pooled at CLS or, CLIPA, by
            the mean of the patches with ``ln_post`` behind it.
        positions: Resampling rule of the position table, see
            :mod:`mmclipdis.clip.towers.positions`.

    Raises:
        ValueError: for a tower of another kind (attention pooling, an average behind ``ln_post``,
            normalised q and k): dense readouts are not defined for it.
    """

    def __init__(self, visual: VisionTransformer, positions: str = "legacy") -> None:
        _check_readable(visual)
        embed_dim = int(visual.proj.shape[1])
        sizes = (visual.image_size, visual.patch_size, embed_dim, visual.proj.shape[0])
        pool = MeanPool() if visual.pool_type == "avg" else CLS_POOL
        super().__init__(visual, positions, *sizes, pool=pool)

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks that open_clip built, first to last."""
        return self.visual.transformer.resblocks  # type: ignore[no-any-return]

    @property
    def stem(self) -> nn.Module:
        """The patch convolution."""
        return self.visual.conv1  # type: ignore[no-any-return]

    @property
    def position_table(self) -> Tensor:
        """``(1 + N, D)`` at native size, CLS first."""
        return self.visual.positional_embedding  # type: ignore[no-any-return]

    @property
    def prefix_tokens(self) -> Tensor:
        """CLS ``(1, D)``, still without its position."""
        return self.visual.class_embedding[None]  # type: ignore[no-any-return]

    def patches(self, images: Tensor) -> Tensor:
        """Patch embedding of RGB images ``(B, 3, H, W)``: ``(B, D, h, w)``."""
        return self.visual.conv1(images)  # type: ignore[no-any-return]

    def norm_pre(self, tokens: Tensor) -> Tensor:
        """Patch dropout (training only) and ``ln_pre``, on tokens ``(B, 1 + N, D)``."""
        return self.visual.ln_pre(self.visual.patch_dropout(tokens))  # type: ignore[no-any-return]

    def norm_post(self, tokens: Tensor) -> Tensor:
        """``ln_post`` of tokens ``(..., D)``."""
        return self.visual.ln_post(tokens)  # type: ignore[no-any-return]

    def head(self, tokens: Tensor) -> Tensor:
        """Tokens behind ``ln_post`` ``(..., D)`` in the joint space: ``(..., E)``."""
        return tokens @ self.visual.proj  # type: ignore[no-any-return]

    def joint_parameters(self) -> list[nn.Parameter]:
        """Those of ``ln_post`` and the projection."""
        return [*self.visual.ln_post.parameters(), self.visual.proj]


def _check_readable(visual: Any) -> None:
    if not isinstance(visual, VisionTransformer):
        raise ValueError(
            f"{type(visual).__name__} is not an open_clip vision transformer; "
            "dense readouts need an OpenAI-style ViT such as 'ViT-B-16-quickgelu'"
        )
    wrong = {
        "attention pooling": visual.attn_pool is not None,
        f"pool_type={visual.pool_type!r}": visual.pool_type not in ("tok", "avg"),
        "a mean behind ln_post": visual.pool_type == "avg" and not visual.final_ln_after_pool,
        "no projection": visual.proj is None,
        "another kind of attention": not has_plain_attention(visual.transformer.resblocks),
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ValueError(
            f"dense readouts are not defined for a ViT with {', '.join(found)}; take one like that "
            "of 'ViT-B-16-quickgelu'"
        )


def build_image_tower(arch: Arch, positions: str | None = None) -> ImageTower:
    """The image tower of ``arch`` with random weights; nothing is downloaded.

    Args:
        arch: An open_clip config name (``'ViT-B-16-quickgelu'``, ``'EVA02-B-16'``) or a dict of the
            same form. Its ``vision_cfg`` may change the layers of a trunk of timm by
            ``timm_model_kwargs``, such as ``dict(embed_dim=32, depth=3, num_heads=2)``.
        positions: Resampling rule of the position table; None is the tower's own, ``legacy`` for
            OpenAI-style ViTs and that of its family for a ViT of timm.

    Raises:
        ValueError: for an unknown name, a tower without dense readouts, a ResNet, which
            :func:`mmclipdis.clip.towers.resnet.build_resnet_tower` builds, or a FastViT or
            ConvNeXt: :func:`mmclipdis.clip.towers.stages.build_stage_tower`.
    """
    config = model_config(arch)
    if is_resnet(config):
        raise ValueError(
            f"arch {arch!r} has a ResNet of CLIP: use the backbone CLIPResNet for it, or an arch "
            "such as 'ViT-B-16-quickgelu'"
        )
    if has_stages(config):
        raise ValueError(
            f"arch {arch!r} has stages, not blocks ({config['vision_cfg']['timm_model_name']}): "
            "use the backbone CLIPConvNet for it, or an arch such as 'ViT-B-16-quickgelu'"
        )
    if config["vision_cfg"].get("timm_model_name"):
        if config["vision_cfg"].get("head"):
            own = "antialias" if positions is None else positions
            return DinoTxtViT(build_dinotxt_visual(config), own)
        return build_timm_vit(config, positions)
    visual = _build_vision_tower(
        config["embed_dim"],
        open_clip.CLIPVisionCfg(**config["vision_cfg"]),
        config.get("quick_gelu", False),
    )
    return OpenCLIPViT(visual, "legacy" if positions is None else positions)


def build_text_transformer(arch: Arch) -> TextTransformer | TipsText:
    """The text tower of ``arch`` with random weights; nothing is downloaded.

    Raises:
        ValueError: for an unknown name or a text tower from another library.
    """
    config = model_config(arch)
    text_cfg = config["text_cfg"]
    if text_cfg.get("hf_model_name"):
        raise ValueError(
            f"arch {arch!r} has the Hugging Face text tower {text_cfg['hf_model_name']!r}, which "
            "is not supported: compute its text embeddings elsewhere and give them as a file "
            "(embeddings=FILE), or choose another arch"
        )
    if text_cfg.get("house_model"):
        return build_house_text(config)
    return _build_text_tower(
        config["embed_dim"],
        open_clip.CLIPTextCfg(**{k: v for k, v in text_cfg.items() if k not in HOUSE_KEYS}),
        config.get("quick_gelu", False),
    )
