"""dino.txt: a frozen DINOv2 or DINOv3 with a small head of blocks that learned the space of text.

Tokens behind the final norm of the backbone (CLS, registers, patches) go through the blocks of the
head, which have no positions, and its own final norm. A text is compared with ``[CLS ; mean of the
patches]``; its second half alone is what a patch is compared with (encoders spec 3.6). A readout
acts on the last block of the head; the published map is ``vanilla``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from mmclipdis.clip.towers.blocks import NormedBlock, view_of
from mmclipdis.clip.towers.pools import ClsMeanPool
from mmclipdis.clip.towers.timm_vit import TimmViT


class HeadBlock(EvaBlock):
    """A block of the head: SwiGLU of ``align(8/3 D)`` channels, qkv without bias, no positions."""

    takes_rope = False

    def __init__(self, width: int, heads: int, align: int = 64, mlp_ratio: float = 8 / 3) -> None:
        super().__init__(
            width,
            heads,
            qkv_bias=False,
            mlp_ratio=mlp_ratio,
            swiglu_mlp=True,
            swiglu_align_to=align,
            attn_type="rope",
            init_values=1e-5,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
        )


class DinoTxtHead(nn.Module):
    """The blocks of the head and their final norm; names are those of the published file.

    Args:
        width: Channels ``D`` of the backbone.
        blocks: How many.
        heads: Attention heads of a block.
    """

    def __init__(self, width: int, blocks: int = 2, heads: int = 16) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(HeadBlock(width, heads) for _ in range(blocks))
        self.ln_final = nn.LayerNorm(width, eps=1e-5)


class DinoTxtVisual(nn.Module):
    """What holds the weights: ``trunk`` of timm and the ``head``."""

    def __init__(self, trunk: nn.Module, head: DinoTxtHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head


class DinoTxtViT(TimmViT):
    """dino.txt's image tower, at any size, square or not.

    The dense map has ``D`` channels, the second half of those of the image embedding.

    Args:
        visual: Trunk and head.
        positions: Rule of the position table of a DINOv2; DINOv3 has none.

    Raises:
        ValueError: for a trunk of other blocks.
    """

    def __init__(self, visual: DinoTxtVisual, positions: str = "antialias") -> None:
        super().__init__(visual, positions)
        self.pool = ClsMeanPool()
        self.heads = view_of(visual.head.blocks[-1]).heads

    @property
    def blocks(self) -> Any:
        """The blocks of the trunk, then those of the head, which read the trunk's normed output."""
        trunk, head = self.visual.trunk, self.visual.head
        return [*trunk.blocks[:-1], NormedBlock(trunk.blocks[-1], trunk.norm), *head.blocks]

    def norm_post(self, tokens: Tensor) -> Tensor:
        """``ln_final`` of tokens ``(..., D)``."""
        return self.visual.head.ln_final(tokens)  # type: ignore[no-any-return]

    def head(self, tokens: Tensor) -> Tensor:
        """Tokens as they are: there is no projection."""
        return tokens

    def joint_parameters(self) -> list[nn.Parameter]:
        """Those of the final norm of the head."""
        return list(self.visual.head.ln_final.parameters())


def build_dinotxt_visual(config: Mapping[str, Any]) -> DinoTxtVisual:
    """Trunk and head of a model config whose ``vision_cfg`` has a ``head``, with random weights.

    Raises:
        ValueError: for fields of ``head`` other than ``blocks`` and ``heads``, or numbers that are
            none.
    """
    vision = config["vision_cfg"]
    options = dict(vision["head"])
    wrong = {name: n for name, n in options.items() if not isinstance(n, int) or n < 1}
    if wrong or set(options) - {"blocks", "heads"}:
        raise ValueError(
            f"vision_cfg['head']={options}: give blocks and heads, numbers above 0, such as "
            "dict(blocks=2, heads=16)"
        )
    changes = vision.get("timm_model_kwargs") or {}
    name, size = vision["timm_model_name"], vision["image_size"]
    trunk: Any = timm.create_model(
        name, pretrained=False, num_classes=0, global_pool="token", img_size=size, **changes
    )
    return DinoTxtVisual(trunk, DinoTxtHead(trunk.embed_dim, **options))
