"""Tiny CLIPs whose image tower is a FastViT (MobileCLIP S) or a ConvNeXt."""

from __future__ import annotations

from typing import Any

TEXT = dict(context_length=16, vocab_size=100, width=32, heads=2, layers=2)


def tiny_fastvit_arch(**trunk: Any) -> dict[str, Any]:
    """As MobileCLIP-S1, with attention in the last stage; ``trunk`` overrides its layers."""
    defaults = dict(layers=(1, 1, 1, 1), embed_dims=(8, 16, 32, 64))
    return dict(
        embed_dim=32,
        vision_cfg=dict(
            image_size=64,
            timm_model_name="fastvit_mci0",
            timm_pool="avg",
            timm_proj=None,
            timm_model_kwargs={**defaults, **trunk},
        ),
        text_cfg=dict(TEXT),
    )


def tiny_deep_fastvit_arch() -> dict[str, Any]:
    """As MobileCLIP2-S3: five stages, of stride 4 to 64."""
    arch = tiny_fastvit_arch(layers=(1,) * 5, embed_dims=(8, 16, 32, 64, 64))
    arch["vision_cfg"]["timm_model_name"] = "fastvit_mci3"
    return arch


def tiny_convnext_arch(proj: str = "linear", **trunk: Any) -> dict[str, Any]:
    """As ``convnext_base_w`` or, with ``mlp``, ``convnext_large_d``; ``trunk`` overrides layers."""
    defaults = dict(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64))
    return dict(
        embed_dim=32,
        vision_cfg=dict(
            image_size=64,
            timm_model_name="convnext_base",
            timm_pool="",
            timm_proj=proj,
            timm_model_kwargs={**defaults, **trunk},
        ),
        text_cfg=dict(TEXT),
    )
