"""Text towers that open_clip lacks: that of TIPS, and CLIP's with the projector of Talk2DINO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.transformer import LayerNorm, QuickGELU, TextTransformer, Transformer
from torch import Tensor, nn

#: Largest wave length of the sinusoids, in places.
_LONGEST = 10000.0


class TipsText(nn.Module):
    """The text transformer of TIPS and TIPSv2 (encoders spec 2.9, 3.5).

    Token embeddings times the root of their width, plus sinusoids; blocks with ReLU; padding is
    neither seen nor averaged; no projection. Names of parameters are open_clip's and the official
    files' alike. :class:`mmclipdis.clip.text.tower.TextTower` runs it.

    Args:
        context_length: Longest token sequence.
        vocab_size: Tokens of the table.
        width: Channels ``D``, of the joint space too.
        heads: Attention heads.
        layers: Blocks.
        mlp_ratio: Width of the feed-forward branches, in ``D``.
        pad_id: Id of padding.
    """

    attn_mask = None
    use_pad_mask = True
    pool_type = "mean"
    cls_emb = None
    text_projection = None
    eos_id = -1
    positional_embedding: Tensor

    def __init__(
        self,
        context_length: int = 64,
        vocab_size: int = 32000,
        width: int = 768,
        heads: int = 12,
        layers: int = 12,
        mlp_ratio: float = 4.0,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        self.context_length, self.vocab_size = context_length, vocab_size
        self.width, self.pad_id = width, pad_id
        self.embedding_scale = width**0.5
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.transformer = Transformer(
            width=width,
            layers=layers,
            heads=heads,
            mlp_ratio=mlp_ratio,
            act_layer=nn.ReLU,
        )
        self.ln_final = LayerNorm(width)
        table = sinusoids(context_length, width)
        self.register_buffer("positional_embedding", table, persistent=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)


def sinusoids(length: int, width: int) -> Tensor:
    """``[sin | cos]`` of ``place * 10000^(-i / (D/2 - 1))`` for i < D/2: ``(length, D)``."""
    half = width // 2
    rates = _LONGEST ** (-torch.arange(half, dtype=torch.float64) / max(1, half - 1))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


class Talk2DinoText(TextTransformer):  # type: ignore[misc]
    """CLIP's text transformer and Talk2DINO's map from its space to DINO's (encoders spec 3.7).

    ``psi(t) = W_2 tanh(W_1 t + b_1) + b_2``. The parameters have the names of the official file.

    Args:
        embed_dim: Channels of the DINO.
        **options: Those of open_clip's ``TextTransformer``; ``output_dim`` is CLIP's.
    """

    def __init__(self, embed_dim: int, **options: Any) -> None:
        super().__init__(**options)
        self.embed_dim = embed_dim
        self.linear_layer = nn.Linear(int(options["output_dim"]), embed_dim)
        self.hidden_layers = nn.ModuleList([nn.Linear(embed_dim, embed_dim)])

    def psi(self, texts: Tensor) -> Tensor:
        """Embeddings of CLIP ``(N, E)``, not normalised, in the space of DINO: ``(N, D)``."""
        return self.hidden_layers[0](self.linear_layer(texts).tanh())  # type: ignore[no-any-return]

    def forward(self, text: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` of token ids ``(N, L)``."""
        return self.psi(super().forward(text))


#: Keys of ``text_cfg`` that open_clip does not know.
HOUSE_KEYS = frozenset({"house_model", "dense_channels", "clip_embed_dim"})
#: Those of the tokenizer, which the towers of the house do not take.
_TOKENIZER_KEYS = frozenset({"hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode"})


def build_house_text(config: Mapping[str, Any]) -> TipsText | Talk2DinoText:
    """The text tower of a config whose ``text_cfg`` has ``house_model``.

    Raises:
        ValueError: for another ``house_model`` than ``'tips'`` and ``'talk2dino'``, or a TIPS whose
            two sides differ in width.
    """
    text_cfg = config["text_cfg"]
    kind = text_cfg["house_model"]
    options = {k: v for k, v in text_cfg.items() if k not in HOUSE_KEYS | _TOKENIZER_KEYS}
    if kind == "tips":
        text = TipsText(**options)
        if text.width != config["embed_dim"]:
            raise ValueError(
                f"the text tower of a TIPS has no projection: its width {text.width} must be "
                f"embed_dim={config['embed_dim']}"
            )
        return text
    if kind != "talk2dino":
        raise ValueError(f"house_model={kind!r} in text_cfg: choose 'tips' or 'talk2dino'")
    return Talk2DinoText(
        int(config["embed_dim"]),
        output_dim=int(text_cfg.get("clip_embed_dim", 512)),
        act_layer=QuickGELU if config.get("quick_gelu") else nn.GELU,
        **options,
    )
