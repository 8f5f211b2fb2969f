"""The text path: prompts -> tokens -> text transformer -> cached class embeddings.

    t_qj = normalise(encode(prompt_j(q))),   T_q = normalise(mean_j t_qj)

Talk2DINO averages before it normalises: ``T_q = normalise(psi(mean_j encode(prompt_j(q))))``. How
far a transformer runs says :mod:`mmclipdis.clip.text.tower`. Embeddings of a vocabulary are kept in
memory and on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from mmclipdis.clip.text.embedding_cache import (
    CacheDir,
    cache_file,
    read_cached,
    weights_version,
    write_cached,
)
from mmclipdis.clip.text.templates import TemplateSet
from mmclipdis.clip.text.tower import TextTower, build_text_tower
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.pools import like_map
from mmclipdis.utils.precision import at_least_fp32

__all__ = ["TextTower", "build_text_tower", "embed_empty", "embed_vocabulary", "ensemble"]


def embed_vocabulary(
    tower: TextTower,
    vocabulary: Vocabulary,
    *,
    batch_size: int = 256,
    progress: bool = True,
    cache_dir: CacheDir = None,
    dense: bool = False,
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
        dense: For a dense map, which in dino.txt has the last half of the channels only.

    Returns:
        ``(Q, E)``, or ``(Q, tower.dense_dim)``, unit rows in the order of ``vocabulary.queries``,
        at least fp32, on the tower's device. Yours to change.

    Raises:
        ValueError: for a batch size below 1 or a prompt longer than the context.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; expected at least 1")
    channels = tower.dense_dim if dense else tower.embed_dim
    content = _key([vocabulary.queries, vocabulary.templates.key()], tower, channels)

    def found() -> Tensor:
        return _from_disk_or_compute(
            tower, vocabulary, content, channels, batch_size, progress, cache_dir
        )

    return _remembered(tower, content, found)


def embed_empty(tower: TextTower, templates: TemplateSet, dense: bool = False) -> Tensor:
    """What prompts say without a name: a unit vector ``(E,)``, from memory or computed.

    The mean over the unit embeddings of all ``templates`` with the empty text in them,
    renormalised. At least fp32, on the tower's device, without gradient, outside autocast.
    """
    channels = tower.dense_dim if dense else tower.embed_dim
    content = _key([[""], templates.key()], tower, channels)  # no vocabulary has an empty name

    def computed() -> Tensor:
        prompts = list(dict.fromkeys(templates.render("")))
        sentences = _encode_sentences(tower, prompts, channels, len(prompts), progress=False)
        return _from_means(tower, sentences.mean(0)[None], channels)[0]

    return _remembered(tower, content, computed)


def ensemble(tower: TextTower, tokens: Tensor, names: int, dense: bool = False) -> Tensor:
    """Unit embeddings ``(Q, E)`` of the token ids of as many sentences of each name, with gradient.

    Args:
        tower: Text tower.
        tokens: ``(Q * T, L)``, name by name.
        names: ``Q``.
        dense: For a dense map: ``(Q, tower.dense_dim)``.
    """
    channels = tower.dense_dim if dense else tower.embed_dim
    sentences = _averaged(tower, tower.sentences(tokens), channels)
    means = sentences.view(names, -1, sentences.shape[-1]).mean(dim=1)
    return F.normalize(like_map(tower.after_mean(means), channels), dim=-1)


def _averaged(tower: TextTower, sentences: Tensor, channels: int) -> Tensor:
    """What is averaged of ``tower.sentences()``: unit vectors ``(N, channels)``, or as they are."""
    return sentences if tower.averages_raw else F.normalize(like_map(sentences, channels), dim=-1)


def _key(asked: list[Any], tower: TextTower, channels: int) -> str:
    """What is asked of a tower; that of all its channels is as it always was."""
    return json.dumps(asked if channels == tower.embed_dim else [*asked, channels])


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
    channels: int,
    batch_size: int,
    progress: bool,
    cache_dir: CacheDir,
) -> Tensor:
    if any(p.requires_grad for p in tower.text.parameters()):
        return _compute(tower, vocabulary, channels, batch_size, progress)
    key = hashlib.sha256(f"{tower.fingerprint()} {content}".encode()).hexdigest()
    path = cache_file(cache_dir, key)
    if path is None:
        return _compute(tower, vocabulary, channels, batch_size, progress)
    embeddings = read_cached(path, key, (len(vocabulary.queries), channels))
    if embeddings is None:
        embeddings = _compute(tower, vocabulary, channels, batch_size, progress)
        write_cached(path, key, embeddings)
    return embeddings


def _compute(
    tower: TextTower, vocabulary: Vocabulary, channels: int, batch_size: int, progress: bool
) -> Tensor:
    prompts = vocabulary.prompts()
    index: dict[str, int] = {}
    rows = [[index.setdefault(sentence, len(index)) for sentence in group] for group in prompts]
    sentences = _encode_sentences(tower, list(index), channels, batch_size, progress)  # (U, E)
    means = []
    for _, group in groupby(rows, key=len):  # but for sentences of single names: all rows
        table = torch.tensor(list(group), device=sentences.device)  # (<=Q, templates)
        means += [sentences[part].mean(1) for part in torch.split(table, 256)]
    return _from_means(tower, torch.cat(means), channels)


def _from_means(tower: TextTower, means: Tensor, channels: int) -> Tensor:
    """Unit embeddings ``(Q, channels)`` of the means over the prompts of names, at least fp32."""
    if tower.averages_raw:
        means = tower.after_mean(means.to(tower.text.token_embedding.weight.dtype))
    return F.normalize(at_least_fp32(like_map(means, channels)), dim=1)


def _encode_sentences(
    tower: TextTower, sentences: list[str], channels: int, batch_size: int, progress: bool
) -> Tensor:
    """What is averaged of ``sentences``, at least fp32, encoded in order of length.

    Unit embeddings ``(U, channels)`` or, with a tower that averages before it projects, embeddings
    ``(U, E_clip)`` as they are.
    """
    tokens = tower.tokenize(sentences)
    lengths = tower.lengths(tokens)
    order = lengths.argsort(stable=True, descending=True)  # the longest first: memory peaks early
    found: Tensor | None = None
    hidden = not progress or _rank() > 0 or None  # None: on terminals only
    with tqdm(total=len(sentences), desc="text embeddings", disable=hidden, leave=False) as bar:
        for batch in torch.split(order, batch_size):
            out = at_least_fp32(tower.sentences(tokens[batch, : int(lengths[batch].max())]))
            out = _averaged(tower, out, channels)
            if found is None:
                found = out.new_empty(len(sentences), out.shape[1])
            found[batch.to(out.device)] = out
            bar.update(len(batch))
    if found is None:
        raise ValueError("no sentence to encode")
    return found


def _rank() -> int:
    initialised = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if initialised else 0
