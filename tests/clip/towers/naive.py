"""Attention, merging and affinities written out in loops, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers.readout_fields import Affinity


def softmax(logits: Tensor) -> Tensor:
    weights = (logits - logits.max()).exp()
    return weights / weights.sum()


def naive_block(block: Any, x: Tensor, token: Tensor, seen: Sequence[int]) -> Tensor:
    """An ordinary block of open_clip for a ``token`` (D,) that sees some tokens of ``x`` (L, D)."""
    attn = block.attn
    (wq, wk, wv), (bq, bk, bv) = attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3)
    normed = block.ln_1(x[list(seen)])
    q, k, v = block.ln_1(token) @ wq.T + bq, normed @ wk.T + bk, normed @ wv.T + bv
    width = len(token) // attn.num_heads
    heads = [slice(i * width, (i + 1) * width) for i in range(attn.num_heads)]
    mixed = [softmax(k[:, h] @ q[h] * width**-0.5) @ v[:, h] for h in heads]
    token = token + attn.out_proj(torch.cat(mixed))
    out: Tensor = token + block.mlp(block.ln_2(token))
    return out


def naive_merged(unit: Tensor, labels: list[int], eps: float) -> list[int]:
    """Labels after merging, by growing components."""
    if len(set(labels)) <= 2:
        return labels
    free, masks = min(labels), sorted(set(labels) - {min(labels)})
    means = [F.normalize(unit[[x == m for x in labels]].mean(0), dim=0) for m in masks]
    largest = max(float(a @ b) for a in means for b in means)
    names: dict[int, int] = {}
    for start in range(len(masks)):
        if start in names:
            continue
        number, todo = len(set(names.values())), [start]
        while todo:
            a = todo.pop()
            names[a] = number
            close = (b for b in range(len(masks)) if largest - float(means[a] @ means[b]) <= eps)
            todo += [b for b in close if b not in names]
    return [x if x == free else 10000 + names[masks.index(x)] for x in labels]


def naive_matrix(unit: Tensor, labels: list[int], affinity: Affinity) -> Tensor:
    cosines, free, n = unit @ unit.T, min(labels), len(labels)
    rows = []
    for i in range(n):
        row = torch.full((n,), -torch.inf, dtype=torch.float64)
        for j in range(n):
            same = labels[i] == labels[j] != free
            loose = free in (labels[i], labels[j]) and cosines[i, j] > cosines.mean()
            if same or loose or i == j:
                row[j] = affinity.scale * (cosines[i, j] - affinity.shift * cosines.mean())
        rows.append(softmax(row))
    return torch.stack(rows)
