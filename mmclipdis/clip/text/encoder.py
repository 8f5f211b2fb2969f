"""The text path: prompts -> tokens -> open_clip's text transformer -> cached class embeddings.

    t_qj = normalise(encode(prompt_j(q))),   T_q = normalise(mean_j t_qj)

A causal transformer never looks past the end-of-text token, so token sequences are cut there: the
embeddings are those of the full context length at a fraction of the work. The last block runs for
the end-of-text token only. Embeddings of a vocabulary are kept in memory and on disk.
"""

from __future__ import annotations

import copy
import hashlib
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from open_clip import tokenizer as tokenizers
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from tqdm import tqdm

from mmclipdis.clip.text.embedding_cache import (
    CacheDir,
    MemoryCache,
    cache_file,
    read_cached,
    weights_fingerprint,
    weights_version,
    write_cached,
)
from mmclipdis.clip.text.templates import TemplateSet
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.attention import finish_block, split_heads
from mmclipdis.clip.towers.blocks import has_plain_attention, project
from mmclipdis.clip.towers.build import build_text_transformer
from mmclipdis.clip.weights.loading import Arch, model_config
from mmclipdis.utils.precision import at_least_fp32

#: Tokens of this text tell tokenizers apart (case, white space, numbers, rare words).
_PROBE = "A Photo of  a fire-hydrant's 2 ÜBER crtscreens, isn't it?"


@lru_cache(maxsize=8)
def clip_tokenizer(context_length: int, **options: Any) -> SimpleTokenizer:
    """CLIP's tokenizer; the same object for the same arguments, since its table takes long to read.

    Args:
        context_length: Tokens of a text, start and end included.
        options: Those of ``open_clip.tokenizer.SimpleTokenizer``, such as ``clean``.
    """
    read = getattr(tokenizers, "_tokenizer", None)
    if read is None or options:
        return SimpleTokenizer(context_length=context_length, **options)
    tokenizer = copy.copy(read)  # with the table that open_clip read when it was imported
    tokenizer.context_length = context_length
    return tokenizer


def _hashable(options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` with tuples for lists, as of special tokens."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


class TextTower(nn.Module):
    """open_clip's causal text transformer with its tokenizer, run no further than needed.

    Args:
        text: Text transformer; its parameters keep open_clip's names under ``text.``.
        tokenizer: open_clip's BPE tokenizer; None for the one of CLIP.

    Attributes:
        embed_dim: Channels ``E`` of the joint space.
        context_length: Longest token sequence, start and end of text included.

    Raises:
        ValueError: for a text tower that is not causal or not pooled at the end of the text; token
            sequences could not be cut there.
    """

    def __init__(self, text: TextTransformer, tokenizer: SimpleTokenizer | None = None) -> None:
        super().__init__()
        _check_causal(text)
        self.text = text
        self.tokenizer = tokenizer or clip_tokenizer(int(text.context_length))
        self.context_length = int(text.context_length)
        self.embed_dim = int(text.text_projection.shape[1])
        self.memory = MemoryCache()
        self._fingerprint: tuple[Any, str] | None = None

    @property
    def blocks(self) -> Sequence[ResidualAttentionBlock]:
        """The residual blocks, first to last."""
        return self.text.transformer.resblocks  # type: ignore[no-any-return]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids ``(N, L)``, zero padded, where ``L`` is the length of the longest text.

        Start and end of text are included. On the CPU; case and runs of white space do not matter.

        Raises:
            ValueError: for no text at all, or one that does not fit the context length (open_clip
                would cut it silently) or the token table.
        """
        if isinstance(texts, str) or not texts:
            raise ValueError(f"tokenize() needs a list of texts, got {texts!r}")
        # One place more than the tower has: a text that fills it is too long.
        tokens: Tensor = self.tokenizer(list(texts), context_length=self.context_length + 1)
        lengths = (tokens == self.tokenizer.eot_token_id).int().argmax(1) + 1
        longest = int(lengths.max())
        if longest > self.context_length:
            text = textwrap.shorten(texts[int(lengths.argmax())], 120, placeholder=" ...")
            raise ValueError(
                f"text does not fit {self.context_length} tokens: {text!r}; "
                "use a shorter class name or template"
            )
        if int(tokens.max()) >= self.text.vocab_size:
            raise ValueError(
                f"token {int(tokens.max())} is not among the {self.text.vocab_size} tokens of the "
                "text tower; its vocab_size does not fit the tokenizer"
            )
        return tokens[:, :longest]

    def encode(self, tokens: Tensor) -> Tensor:
        """Text embeddings ``(N, E)`` of token ids ``(N, L)``, not normalised, differentiable.

        Equal to open_clip's ``encode_text`` of the same ids padded to the full context length.

        Raises:
            ValueError: if the ids are not two-dimensional or longer than the context.
        """
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.context_length:
            raise ValueError(
                f"tokens have shape {tuple(tokens.shape)}, expected (N, L) with L <= "
                f"{self.context_length}"
            )
        text = self.text
        tokens = tokens.to(text.token_embedding.weight.device)
        end = self._end_of_text(tokens)
        x = text.token_embedding(tokens) + text.positional_embedding[: tokens.shape[1]]
        x = x.to(text.transformer.get_cast_dtype())  # (N, L, D)
        for block in self.blocks[:-1]:
            x = _run_block(block, x)
        pooled = _run_block_at(self.blocks[-1], x, end)  # (N, D)
        return text.ln_final(pooled) @ text.text_projection  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor) -> Tensor:
        """Same as :meth:`encode`."""
        return self.encode(tokens)

    def fingerprint(self) -> str:
        """Hash of weights and tokenizer, equal in every process that holds the same ones.

        The bytes are hashed again only when a cheap checksum says that a weight has changed.
        """
        version = weights_version(self.text)
        if self._fingerprint is None or self._fingerprint[0] != version:
            ids = self.tokenizer([_PROBE], context_length=self.context_length).tolist()
            # What the weights do not tell: activation, number of heads, normalisation, pooling.
            first = self.blocks[0]
            salt = (
                f"{ids} {first} {first.attn.num_heads} {self.text.ln_final} {self.text.pool_type}"
            )
            self._fingerprint = (version, weights_fingerprint(self.text, salt))
        return self._fingerprint[1]

    def _end_of_text(self, tokens: Tensor) -> Tensor:
        if self.text.pool_type == "eos":
            tokens = (tokens == self.text.eos_id).int()
        return tokens.argmax(1)  # end of text has the largest id


def _check_causal(text: Any) -> None:
    if not isinstance(text, TextTransformer):
        raise ValueError(f"{type(text).__name__} is not open_clip's TextTransformer")
    wrong = {
        "no causal mask": text.attn_mask is None,
        f"pool_type={text.pool_type!r}": text.pool_type not in ("argmax", "eos"),
        "a class token": text.cls_emb is not None,
        "no projection matrix": not isinstance(text.text_projection, nn.Parameter),
        "another kind of attention": not has_plain_attention(text.transformer.resblocks),
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ValueError(
            f"text tower with {', '.join(found)}: supported are causal towers pooled at the end of "
            "the text, such as that of 'ViT-B-16-quickgelu'"
        )


def _run_block(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """One causal block: ``(N, L, D)`` to ``(N, L, D)``."""
    heads = block.attn.num_heads
    parts = project(block.attn, block.ln_1(x), "qkv")
    q, k, v = (split_heads(parts[name], heads) for name in "qkv")
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    out = block.ls_1(block.attn.out_proj(out.transpose(1, 2).flatten(2)))
    return finish_block(block, x, out, residual="token", ffn=True)


def _run_block_at(block: ResidualAttentionBlock, x: Tensor, end: Tensor) -> Tensor:
    """Row ``end`` of a causal block: ``(N, L, D)`` and ``(N,)`` to ``(N, D)``."""
    heads = block.attn.num_heads
    rows = torch.arange(len(x), device=x.device)
    normed = block.ln_1(x)
    parts = project(block.attn, normed, "kv")
    parts |= project(block.attn, normed[rows, end][:, None], "q")
    q, k, v = (split_heads(parts[name], heads) for name in "qkv")
    visible = torch.arange(x.shape[1], device=x.device) <= end[:, None]  # (N, L)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None, None])
    out = block.ls_1(block.attn.out_proj(out.transpose(1, 2).flatten(2)))
    return finish_block(block, x[rows, end][:, None], out, residual="token", ffn=True)[:, 0]


def build_text_tower(arch: Arch) -> TextTower:
    """The text tower of ``arch`` with its tokenizer and random weights; nothing is downloaded.

    Args:
        arch: An open_clip config name (``'ViT-B-16-quickgelu'``) or a dict of the same form.

    Raises:
        ValueError: for an unknown name, a tower that is not causal, or a tokenizer that would have
            to be downloaded.
    """
    text_cfg = model_config(arch)["text_cfg"]
    if text_cfg.get("hf_tokenizer_name"):
        raise ValueError(
            f"arch {arch!r} needs the Hugging Face tokenizer {text_cfg['hf_tokenizer_name']!r}, "
            "which is not supported; choose an arch with CLIP's own tokenizer"
        )
    text = build_text_transformer(arch)
    options = text_cfg.get("tokenizer_kwargs") or {}
    return TextTower(text, clip_tokenizer(int(text.context_length), **_hashable(options)))


def embed_vocabulary(
    tower: TextTower,
    vocabulary: Vocabulary,
    *,
    batch_size: int = 256,
    progress: bool = True,
    cache_dir: CacheDir = None,
) -> Tensor:
    """Embeddings of all queries: the mean over the unit embeddings of their prompts, renormalised.

    They come from memory, else from disk, else they are computed: every sentence once, sorted by
    length so that a batch carries little padding, outside autocast, without gradient. A tower with
    trainable weights does not use the disk, since its weights will not come back.

    Args:
        tower: Text tower.
        vocabulary: Classes with ``Q`` queries.
        batch_size: Sentences a batch.
        progress: Show a progress bar (rank 0 only) while computing.
        cache_dir: Directory of the disk cache; None for ``$MMCLIPDIS_CACHE`` or, without it,
            ``mmclipdis`` in the user's folder of caches; False for no disk cache.

    Returns:
        ``(Q, E)`` unit rows in the order of ``vocabulary.queries``, at least fp32, on the tower's
        device. Yours to change.

    Raises:
        ValueError: for a batch size below 1 or a prompt longer than the context.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; expected at least 1")
    content = json.dumps([vocabulary.queries, vocabulary.templates.key()])

    def found() -> Tensor:
        return _from_disk_or_compute(tower, vocabulary, content, batch_size, progress, cache_dir)

    return _remembered(tower, content, found)


def embed_empty(tower: TextTower, templates: TemplateSet) -> Tensor:
    """What prompts say without a name: a unit vector ``(E,)``, from memory or computed.

    The mean over the unit embeddings of all ``templates`` with the empty text in them,
    renormalised. At least fp32, on the tower's device, without gradient, outside autocast.
    """
    content = json.dumps([[""], templates.key()])  # no vocabulary has an empty name

    def computed() -> Tensor:
        prompts = list(dict.fromkeys(templates.render("")))
        unit = _encode_unit(tower, prompts, len(prompts), progress=False)
        return F.normalize(unit.mean(0), dim=0)

    return _remembered(tower, content, computed)


def _remembered(tower: TextTower, content: str, compute: Callable[[], Tensor]) -> Tensor:
    """What the tower remembers of ``content``, or computes now, on its device; yours to change."""
    device = tower.text.token_embedding.weight.device
    version = weights_version(tower.text)
    # Normal tensors even inside inference_mode: a cached one may later meet autograd.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        found = tower.memory.get(version, content)
        if found is None:
            found = compute().to(device)
            tower.memory.put(version, content, found)
        return found.clone()


def _from_disk_or_compute(
    tower: TextTower,
    vocabulary: Vocabulary,
    content: str,
    batch_size: int,
    progress: bool,
    cache_dir: CacheDir,
) -> Tensor:
    if any(p.requires_grad for p in tower.text.parameters()):
        return _compute(tower, vocabulary, batch_size, progress)
    key = hashlib.sha256(f"{tower.fingerprint()} {content}".encode()).hexdigest()
    path = cache_file(cache_dir, key)
    if path is None:
        return _compute(tower, vocabulary, batch_size, progress)
    embeddings = read_cached(path, key, (len(vocabulary.queries), tower.embed_dim))
    if embeddings is None:
        embeddings = _compute(tower, vocabulary, batch_size, progress)
        write_cached(path, key, embeddings)
    return embeddings


def _compute(tower: TextTower, vocabulary: Vocabulary, batch_size: int, progress: bool) -> Tensor:
    prompts = vocabulary.prompts()
    index: dict[str, int] = {}
    rows = [[index.setdefault(sentence, len(index)) for sentence in group] for group in prompts]
    sentences = _encode_unit(tower, list(index), batch_size, progress)  # (U, E)
    means = []
    for _, group in groupby(rows, key=len):  # but for sentences of single names: all rows
        table = torch.tensor(list(group), device=sentences.device)  # (<=Q, templates)
        means += [sentences[part].mean(1) for part in torch.split(table, 256)]
    return F.normalize(torch.cat(means), dim=1)


def _encode_unit(tower: TextTower, sentences: list[str], batch_size: int, progress: bool) -> Tensor:
    """Unit embeddings ``(U, E)`` of ``sentences``, at least fp32, encoded in order of length."""
    tokens = tower.tokenize(sentences)
    lengths = tokens.argmax(1) + 1
    order = lengths.argsort(stable=True, descending=True)  # the longest first: memory peaks early
    unit: Tensor | None = None
    hidden = not progress or _rank() > 0 or None  # None: on terminals only
    with tqdm(total=len(sentences), desc="text embeddings", disable=hidden, leave=False) as bar:
        for batch in torch.split(order, batch_size):
            out = tower.encode(tokens[batch, : int(lengths[batch].max())])
            out = F.normalize(at_least_fp32(out), dim=1)
            if unit is None:
                unit = out.new_empty(len(sentences), out.shape[1])
            unit[batch.to(out.device)] = out
            bar.update(len(batch))
    if unit is None:
        raise ValueError("no sentence to encode")
    return unit


def _rank() -> int:
    initialised = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if initialised else 0
