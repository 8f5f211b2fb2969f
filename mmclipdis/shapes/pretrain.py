"""Contrastive pretraining of the tiny CLIP of ShapeScenes, in plain PyTorch and open_clip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, tokenize
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from mmclipdis.engine.work_folder import lock_work_folder
from mmclipdis.shapes.captions import names_in
from mmclipdis.shapes.pairs import Named, Pairs
from mmclipdis.shapes.training import adamw, clipped_step, learning_rate, resume_run, save_run
from mmclipdis.shapes.world import CLASSES


@dataclass(frozen=True)
class Recipe:
    """Settings of one pretraining run.

    ``patch_dropout`` leaves out that share of the patches at random (FLIP), for all but the last
    ``settle`` share of the steps: it halves the work, and a class must be readable from whichever
    patches remain, which spreads it over the object instead of over a few tokens. A step takes
    ``batch`` pairs, split evenly over ``processes`` of one thread each; a sentence is compared
    with the pictures of its own process. ``named``: the captions name ``"all"`` that is in sight,
    or of the things the ``"largest"`` one only, as people do.
    """

    pairs: int = 24_000
    steps: int = 2_200
    batch: int = 128
    processes: int = 2
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200
    patch_dropout: float = 0.5
    settle: float = 0.1
    seed: int = 0
    named: Named = "all"

    def __post_init__(self) -> None:
        if self.processes < 1 or self.batch % self.processes:
            raise ValueError(
                f"batch ({self.batch}) must be a multiple of processes ({self.processes})"
            )
        if not 0 <= self.patch_dropout < 1 or not 0 <= self.settle <= 1:
            raise ValueError("patch_dropout must lie in [0, 1) and settle in [0, 1]")
        if min(self.pairs, self.steps) < 1 or self.pairs < self.batch:
            raise ValueError("pairs must be at least batch, and steps at least 1")


def normalise(images: NDArray[np.uint8]) -> Tensor:
    """``(n, s, s, 3)`` uint8 RGB -> ``(n, 3, s, s)`` float with CLIP's mean and deviation."""
    mean, std = (torch.tensor(x) * 255 for x in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    x = (torch.from_numpy(np.ascontiguousarray(images)).float() - mean) / std
    return x.permute(0, 3, 1, 2).contiguous()


class Captions:
    """Tokens of all captions, over the token ids that occur in them ("compact" ids).

    Attributes:
        ids: ``(V,)`` sorted token ids of the standard vocabulary; a compact id is a position in it.
            The end-of-text id is the largest of both.
        tokens: ``(n, k, L)`` compact ids; positions after the end of text hold compact id 0.
        mentions: ``(n, k, C)`` whether caption k of picture n names class c; read off the text.
    """

    def __init__(self, captions: list[tuple[str, ...]]) -> None:
        flat = [text for group in captions for text in group]
        unique = sorted(set(flat))
        rows = {text: row for row, text in enumerate(unique)}
        tokens = tokenize(unique).numpy()
        length = int(tokens.argmax(axis=1).max()) + 1
        self.ids = np.unique(tokens[:, :length])
        compact = np.searchsorted(self.ids, tokens[:, :length])
        named = np.asarray([[name in names for name in CLASSES] for names in map(names_in, unique)])
        index = np.asarray([rows[text] for text in flat]).reshape(len(captions), -1)
        self.tokens = torch.from_numpy(compact)[torch.from_numpy(index)]
        self.mentions = torch.from_numpy(named)[torch.from_numpy(index)]


def encode_text(model: CLIP, tokens: Tensor) -> Tensor:
    """Text embeddings ``(n, E)`` of tokens ``(n, L)`` cut at the longest sentence of the batch."""
    length = int(tokens.argmax(dim=1).max()) + 1
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(tokens)), tokens.argmax(dim=1)]
    return x @ model.text_projection


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, positive: Tensor) -> Tensor:
    """Softmax contrastive loss with several positives, mean over both directions.

    ``image`` and ``text`` are unit rows ``(B, E)``, ``positive`` a ``(B, B)`` bool matrix with a
    true diagonal: caption j is a true sentence about picture i. The target of a row (column) is
    uniform over its positives, so that a true sentence is never a negative.
    """
    logits = scale * image @ text.T
    target = positive.float()
    rows = -(F.log_softmax(logits, dim=1) * target).sum(1) / target.sum(1)
    columns = -(F.log_softmax(logits, dim=0) * target).sum(0) / target.sum(0)
    return (rows.mean() + columns.mean()) / 2


def build_model(config: Mapping[str, Any], vocabulary: int, patch_dropout: float = 0.0) -> CLIP:
    """open_clip's CLIP of a model config, over a vocabulary of the given size."""
    vision = {**config["vision_cfg"], "patch_dropout": patch_dropout}
    text = {**config["text_cfg"], "vocab_size": vocabulary}
    return CLIP(
        embed_dim=int(config["embed_dim"]),
        vision_cfg=vision,
        text_cfg=text,
        quick_gelu=bool(config["quick_gelu"]),
    )


def _batch(
    pairs: Pairs, captions: Captions, recipe: Recipe, step: int, rank: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, tokens and positives of one process; a function of seed, step and rank alone."""
    rng = np.random.default_rng([recipe.seed, step, rank])
    size = recipe.batch // recipe.processes
    chosen = np.sort(rng.choice(len(pairs.images), size, replace=False))
    images = pairs.images[chosen]
    flip = rng.random(size) < 0.5
    images = np.where(flip[:, None, None, None], images[:, :, ::-1], images)
    which = torch.from_numpy(rng.integers(captions.tokens.shape[1], size=size))
    rows = torch.from_numpy(chosen)
    named = captions.mentions[rows, which].float()  # (B, C) what each sentence says
    known = captions.mentions[rows].any(dim=1).float()  # (B, C) what is said about each picture
    positive = (1 - known) @ named.T == 0  # nothing said that is not known
    return normalise(images), captions.tokens[rows, which], positive


def pretrain(
    pairs: Pairs,
    config: Mapping[str, Any],
    recipe: Recipe,
    folder: Path,
    rank: int = 0,
    save_every: int = 250,
) -> None:
    """Runs the recipe into ``folder/last.pt``, from where it also resumes.

    With several processes each calls this with its rank, in a gloo group. Raises ValueError when
    the checkpoint was made by another recipe, or a loss or gradient is not finite.
    """
    lock = lock_work_folder(folder)
    captions = Captions(pairs.captions)
    torch.manual_seed(recipe.seed)
    model = build_model(config, len(captions.ids), recipe.patch_dropout)
    parameters = list(model.parameters())
    optimiser = adamw(model, recipe)
    start = resume_run(folder, model, optimiser, recipe)
    bar = tqdm(
        range(start, recipe.steps), "pretrain", recipe.steps, start, disable=rank > 0 or None
    )
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        if step >= recipe.steps * (1 - recipe.settle):
            model.visual.patch_dropout.prob = 0.0
        # Seeded by step, so that patches dropped after a resume are those of an unbroken run.
        torch.manual_seed((recipe.seed * 1_000_003 + step) * recipe.processes + rank)
        loss = _loss(model, *_batch(pairs, captions, recipe, step, rank))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        _average_gradients(parameters, recipe.processes)
        clipped_step(model, optimiser, loss, step)
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", scale=f"{model.logit_scale.exp():.1f}")
        if rank == 0 and ((step + 1) % save_every == 0 or step + 1 == recipe.steps):
            ids = torch.from_numpy(captions.ids)
            save_run(folder, model, optimiser, recipe, step + 1, ids=ids)
    del lock  # held until here


def _loss(model: CLIP, images: Tensor, tokens: Tensor, positive: Tensor) -> Tensor:
    # bfloat16 products with plain attention: 1.5 times as fast as float32 on a CPU with AMX, where
    # the backward pass of the fused bfloat16 attention is slower than everything else together.
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        image = model.visual(images)
        text = encode_text(model, tokens)
    image, text = (F.normalize(x.float(), dim=-1) for x in (image, text))
    return contrastive_loss(image, text, model.logit_scale.exp(), positive)


def _average_gradients(parameters: list[torch.nn.Parameter], processes: int) -> None:
    if processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
