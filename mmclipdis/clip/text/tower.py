"""Text transformers with their tokenizers, run no further than needed.

A causal transformer never looks past the end-of-text token, so token sequences are cut there: the
embeddings are those of the full context length at a fraction of the work. Where padding is masked,
sequences are cut at the last token. Towers that read the padding (SigLIP, MobileCLIP-S, CLIPA) get
all of it, as in training. Where one token is pooled, the last block runs for that token only.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from mmclipdis.clip.text.blocks import masked_mean, projected, run_block, run_block_at
from mmclipdis.clip.text.embedding_cache import (
    MemoryCache,
    weights_fingerprint,
    weights_version,
)
from mmclipdis.clip.text.house_text import Talk2DinoText, TipsText
from mmclipdis.clip.text.tokenizer_files import build_tokenizer
from mmclipdis.clip.text.tokenizers import ClipTokenizer, Tokenizer, clip_tokenizer
from mmclipdis.clip.towers.blocks import has_plain_attention
from mmclipdis.clip.towers.build import build_text_transformer
from mmclipdis.clip.weights.loading import Arch, model_config

#: Tokens of this text tell tokenizers apart (case, white space, numbers, rare words).
_PROBE = "A Photo of  a fire-hydrant's 2 ÜBER crtscreens, isn't it?"
#: What is pooled: the largest id, the id of the end of text, the last place (of the padded
#: sequence), or the mean over what is no padding.
POOLS = ("argmax", "eos", "last", "mean")


class TextTower(nn.Module):
    """A text transformer of open_clip, or one of the house, with its tokenizer.

    Args:
        text: Text transformer; its parameters keep open_clip's names under ``text.``.
        tokenizer: Its tokenizer, or what makes it once texts come; None for the one of CLIP.
        dense_dim: Channels at the end of an embedding that belong to dense maps (dino.txt: the
            second half; the first belongs to CLS); None for all.

    Attributes:
        embed_dim: Channels ``E`` of the joint space.
        context_length: Longest token sequence, start and end of text included.
        cut: Whether token sequences may end where their texts do.

    Raises:
        ValueError: for a text tower with a class token, another pool than :data:`POOLS`, or another
            kind of attention.
    """

    def __init__(
        self,
        text: TextTransformer | TipsText,
        tokenizer: Tokenizer | SimpleTokenizer | Callable[[], Tokenizer] | None = None,
        dense_dim: int | None = None,
    ) -> None:
        super().__init__()
        _check_readable(text)
        self.text = text
        if isinstance(tokenizer, SimpleTokenizer):
            tokenizer = ClipTokenizer(tokenizer)
        self._tokenizer = tokenizer or clip_tokenizer(int(text.context_length))
        self.context_length = int(text.context_length)
        self.embed_dim = _out_channels(text)
        self.dense_dim = self.embed_dim if dense_dim is None else int(dense_dim)
        if not 0 < self.dense_dim <= self.embed_dim:
            raise ValueError(f"dense_dim={dense_dim} is none of 1..{self.embed_dim}")
        self.causal = text.attn_mask is not None
        self.masked = bool(text.use_pad_mask)
        self.cut = (self.causal or self.masked) and text.pool_type != "last"
        self.memory = MemoryCache()
        self._fingerprint: tuple[Any, str] | None = None

    @property
    def blocks(self) -> Sequence[ResidualAttentionBlock]:
        """The residual blocks, first to last."""
        return self.text.transformer.resblocks  # type: ignore[no-any-return]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            FileNotFoundError, ImportError, ValueError: as :func:`build_text_tower`, if its file was
                not there when the tower was built.
        """
        if not isinstance(self._tokenizer, Tokenizer):
            self._tokenizer = self._tokenizer()
        return self._tokenizer

    @property
    def averages_raw(self) -> bool:
        """Whether prompts are averaged before they have unit length, and projected after."""
        return isinstance(self.text, Talk2DinoText)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids ``(N, L)``, padded, where ``L`` is the length of the longest text.

        Towers that read the padding get all of it: there ``L`` is the context length. Start and end
        of text are included. On the CPU.

        Raises:
            ValueError: for no text at all, or one that does not fit the context length (open_clip
                would cut it silently), has no token or does not fit the token table.
        """
        if isinstance(texts, str) or not texts:
            raise ValueError(f"tokenize() needs a list of texts, got {texts!r}")
        # One place more than the tower has: a text that fills it is too long.
        tokens = self.tokenizer(list(texts), self.context_length + 1)
        lengths = self.tokenizer.lengths(tokens)
        longest = int(lengths.max())
        if longest > self.context_length:
            text = textwrap.shorten(texts[int(lengths.argmax())], 120, placeholder=" ...")
            raise ValueError(
                f"text does not fit {self.context_length} tokens: {text!r}; "
                "use a shorter class name or template"
            )
        if int(lengths.min()) == 0:
            raise ValueError(f"text {texts[int(lengths.argmin())]!r} has no token; give a word")
        if int(tokens.max()) >= self.text.vocab_size:
            raise ValueError(
                f"token {int(tokens.max())} is not among the {self.text.vocab_size} tokens of the "
                "text tower; its vocab_size does not fit the tokenizer"
            )
        return tokens[:, : longest if self.cut else self.context_length]

    def lengths(self, tokens: Tensor) -> Tensor:
        """How many ids of each row of ``tokens`` ``(N, L)`` the tower reads: ``(N,)``."""
        if not self.cut:
            return tokens.new_full((len(tokens),), tokens.shape[1])
        if self.text.pool_type == "mean":
            places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
            return (places * (tokens != self.text.pad_id)).amax(1)
        return self._pooled_place(tokens) + 1

    def encode(self, tokens: Tensor) -> Tensor:
        """Text embeddings ``(N, E)`` of token ids ``(N, L)``, not normalised, differentiable.

        Equal to open_clip's ``encode_text`` of the same ids padded to the full context length.

        Raises:
            ValueError: if the ids are not two-dimensional or longer than the context, or shorter
                where the tower reads the padding.
        """
        return self.after_mean(self.sentences(tokens))

    def sentences(self, tokens: Tensor) -> Tensor:
        """What prompts are averaged as, ``(N, E)`` or, before a projector, ``(N, E_clip)``.

        Raises:
            ValueError: as :meth:`encode`.
        """
        self._check_tokens(tokens)
        text = self.text
        tokens = tokens.to(text.token_embedding.weight.device)
        x = text.token_embedding(tokens)  # (N, L, D)
        if isinstance(text, TipsText):
            x = x * text.embedding_scale
        x = x + text.positional_embedding[: tokens.shape[1]]
        x = x.to(text.transformer.get_cast_dtype())
        valid = tokens != text.pad_id
        seen = valid if self.masked else None
        one = text.pool_type != "mean"
        for block in self.blocks[:-1] if one else self.blocks:
            x = run_block(block, x, self.causal, seen)
        if one:
            end = self._pooled_place(tokens)
            pooled = text.ln_final(run_block_at(self.blocks[-1], x, end, self.causal, seen))
        else:
            pooled = masked_mean(text.ln_final(x), valid)
        return projected(text, pooled)

    def after_mean(self, sentences: Tensor) -> Tensor:
        """What remains to be done with the mean over the prompts of a name: ``(N, E)``."""
        return self.text.psi(sentences) if isinstance(self.text, Talk2DinoText) else sentences

    def forward(self, tokens: Tensor) -> Tensor:
        """Same as :meth:`encode`."""
        return self.encode(tokens)

    def fingerprint(self) -> str:
        """Hash of weights and tokenizer, equal in every process that holds the same ones.

        The bytes are hashed again only when a cheap checksum says that a weight has changed.
        """
        version = weights_version(self.text)
        if self._fingerprint is None or self._fingerprint[0] != version:
            ids = self.tokenizer([_PROBE], self.context_length).tolist()
            # What the weights do not tell: activation, number of heads, normalisation, pooling.
            first = self.blocks[0]
            salt = (
                f"{ids} {first} {first.attn.num_heads} {self.text.ln_final} {self.text.pool_type}"
            )
            if not self.causal or self.tokenizer.key():  # older fingerprints know neither
                salt += f" {self.causal} {self.masked} {self.text.pad_id} {self.tokenizer.key()}"
            if self.text.pool_type == "eos":
                salt += f" {self.text.eos_id}"
            self._fingerprint = (version, weights_fingerprint(self.text, salt))
        return self._fingerprint[1]

    def _check_tokens(self, tokens: Tensor) -> None:
        length = self.context_length
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= length:
            raise ValueError(
                f"tokens have shape {tuple(tokens.shape)}, expected (N, L) with L <= {length}"
            )
        if not self.cut and tokens.shape[1] != length:
            raise ValueError(
                f"tokens have shape {tuple(tokens.shape)}, expected (N, {length}): this text tower "
                "reads the padding too; take those of tokenize()"
            )

    def _pooled_place(self, tokens: Tensor) -> Tensor:
        """Place ``(N,)`` of the token that stands for each text."""
        if self.text.pool_type == "last":
            return tokens.new_full((len(tokens),), tokens.shape[1] - 1)
        if self.text.pool_type == "eos":
            tokens = (tokens == self.text.eos_id).int()
        return tokens.argmax(1)  # end of text has the largest id


def _check_readable(text: Any) -> None:
    if not isinstance(text, (TextTransformer, TipsText)):
        raise ValueError(f"{type(text).__name__} is not open_clip's TextTransformer")
    wrong = {
        f"pool_type={text.pool_type!r}": text.pool_type not in POOLS,
        "a class token": text.cls_emb is not None,
        "another kind of attention": not has_plain_attention(text.transformer.resblocks),
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ValueError(
            f"text tower with {', '.join(found)}: supported are towers of plain blocks pooled by "
            f"{', '.join(POOLS)}, such as those of 'ViT-B-16-quickgelu' and 'ViT-B-16-SigLIP2'"
        )


def _out_channels(text: Any) -> int:
    if isinstance(text, Talk2DinoText):
        return int(text.embed_dim)
    projection = text.text_projection
    if isinstance(projection, nn.Linear):
        return projection.out_features
    return int(text.width if projection is None else projection.shape[1])


def build_text_tower(
    arch: Arch, tokenizer: str | Path | None = None, clean: str | None = None
) -> TextTower:
    """The text tower of ``arch`` with its tokenizer and random weights; nothing is downloaded.

    Args:
        arch: An open_clip config name (``'ViT-B-16-quickgelu'``) or a dict of the same form.
        tokenizer: File of the tokenizer, or the folder that holds it, for an arch that has another
            than CLIP's; see :func:`mmclipdis.clip.text.tokenizer_files.build_tokenizer`.
        clean: How texts are cleaned, ``'lower'``, ``'canonicalize'`` or ``'whitespace'``; None for
            the arch's way.

    Raises:
        ImportError: the package that reads the file is missing.
        ValueError: for an unknown name, a tower that is not supported, or a tokenizer that is
            missing or of another family.
    """
    config = model_config(arch)
    text_cfg: Mapping[str, Any] = config["text_cfg"]
    if text_cfg.get("hf_model_name"):
        build_text_transformer(arch)  # refuses: its tokenizer would not help
    name = repr(arch) if isinstance(arch, str) else "given as a dict"
    length = int(text_cfg.get("context_length", 77))
    late = partial(build_tokenizer, text_cfg, length, name, tokenizer, clean)
    # a file that is not there is asked for once texts come, as weights are
    words: Tokenizer | Callable[[], Tokenizer] = late
    with suppress(FileNotFoundError):
        words = late()
    return TextTower(build_text_transformer(arch), words, text_cfg.get("dense_channels"))
