"""The tiny CLIP that tests build instead of ViT-B/16."""

from __future__ import annotations

from typing import Any


def tiny_arch(**vision: Any) -> dict[str, Any]:
    """An open_clip config of a few thousand parameters; ``vision`` overrides its ``vision_cfg``."""
    defaults = dict(image_size=64, patch_size=16, width=64, head_width=16, layers=3)
    return dict(
        embed_dim=32,
        quick_gelu=True,
        vision_cfg={**defaults, **vision},
        text_cfg=dict(context_length=16, vocab_size=100, width=32, heads=2, layers=2),
    )


def tiny_eva_arch(**trunk: Any) -> dict[str, Any]:
    """An open_clip config of a small EVA02-CLIP; ``trunk`` overrides its ``timm_model_kwargs``."""
    defaults = dict(img_size=16, patch_size=4, embed_dim=32, depth=3, num_heads=2)
    return dict(
        embed_dim=8,
        vision_cfg=dict(
            image_size=16,
            timm_model_name="eva02_base_patch16_clip_224",
            timm_pool="token",
            timm_proj=None,
            timm_model_kwargs={**defaults, **trunk},
        ),
        text_cfg=dict(context_length=16, vocab_size=100, width=32, heads=2, layers=2),
    )


def tiny_resnet_arch(**vision: Any) -> dict[str, Any]:
    """An open_clip config of a small CLIP ResNet; ``vision`` overrides its ``vision_cfg``."""
    defaults = dict(image_size=64, layers=[1, 1, 1, 1], width=8)
    return dict(
        embed_dim=32,
        quick_gelu=True,
        vision_cfg={**defaults, **vision},
        text_cfg=dict(context_length=16, vocab_size=100, width=32, heads=2, layers=2),
    )
