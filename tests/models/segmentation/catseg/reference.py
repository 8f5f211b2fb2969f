"""CAT-Seg's aggregator in its plain form: what the fast modules must equal.

Guidance is repeated and concatenated for every class, attention is an explicit softmax over
cyclically shifted windows with a mask, padding tokens are real tokens. Works on the parameters of a
``CATSegAggregator``, so gradients can be compared too. Also the baseline of the benchmark in
``tools/benchmarks/catseg_aggregator.py``.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F


def z(key, shape):
    """Deterministic normal numbers of the specification, float64."""
    state = np.random.RandomState(zlib.crc32(key.encode()))
    return torch.from_numpy(np.asarray(state.standard_normal(shape)))


def fill_value(key, shape):
    """Deterministic parameter value for an official name."""
    value = z(key, shape)
    if len(shape) >= 2:
        return value / (value.numel() / shape[0]) ** 0.5
    return 1 + 0.1 * value if key.endswith("weight") else 0.05 * value


def windows(x, side):
    """(N, h, w, C) -> (N * windows, side^2, C)."""
    n, height, width, c = x.shape
    x = x.view(n, height // side, side, width // side, side, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, c)


def unwindows(x, side, height, width):
    """Inverse of ``windows``."""
    n = x.shape[0] // ((height // side) * (width // side))
    x = x.view(n, height // side, width // side, side, side, -1)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(n, height, width, -1)


def shift_mask(height, width, side, shift, like):
    """(windows, side^2, side^2): -100 between tokens of different regions."""
    regions = torch.zeros(1, height, width, 1)
    number = 0
    for rows in (slice(0, -side), slice(-side, -shift), slice(-shift, None)):
        for columns in (slice(0, -side), slice(-side, -shift), slice(-shift, None)):
            regions[:, rows, columns] = number
            number += 1
    ids = windows(regions, side).squeeze(-1)
    return torch.where(ids[:, None] == ids[:, :, None], 0.0, -100.0).to(like)


def swin_block(block, x, guidance, height, width, side, shift):
    """x, guidance: (N, h w, C)."""
    if min(height, width) <= side:
        side, shift = min(height, width), 0
    attention, skip = block.attn, x
    x = block.norm1(x)
    x = torch.cat([x, guidance], dim=-1).view(len(x), height, width, -1)
    if shift:
        x = torch.roll(x, (-shift, -shift), (1, 2))
    x = windows(x, side)
    n, length, _ = x.shape
    heads, dim = attention.num_heads, attention.dim

    def split(y):
        return y.view(n, length, heads, dim // heads).transpose(1, 2)

    q, k = split(attention.q(x)), split(attention.k(x))
    v = split(attention.v(x[..., :dim]))
    logits = (q * (dim // heads) ** -0.5) @ k.transpose(-2, -1)
    if shift:
        mask = shift_mask(height, width, side, shift, logits)
        logits = logits.view(-1, len(mask), heads, length, length) + mask[:, None]
        logits = logits.view(n, heads, length, length)
    x = (logits.softmax(-1) @ v).transpose(1, 2).reshape(n, length, dim)
    x = unwindows(attention.proj(x), side, height, width)
    if shift:
        x = torch.roll(x, (shift, shift), (1, 2))
    x = skip + x.reshape(skip.shape)
    return x + block.mlp(block.norm2(x))


def spatial(layer, x, appearance, side):
    """x: (B, C, T, h, w); appearance: (B, C, h, w)."""
    b, c, t, height, width = x.shape
    guidance = appearance.repeat_interleave(t, dim=0).flatten(2).transpose(1, 2)
    guidance = layer.guidance_norm(guidance)
    x = x.transpose(1, 2).reshape(b * t, c, height * width).transpose(1, 2)
    x = swin_block(layer.blocks[0], x, guidance, height, width, side, 0)
    x = swin_block(layer.blocks[1], x, guidance, height, width, side, side // 2)
    return x.transpose(1, 2).reshape(b, t, c, height, width).transpose(1, 2)


def linear_attention(attention, x, text):
    """x, text: (N, T, C)."""
    n, t, _ = x.shape
    joint = torch.cat([x, text], dim=-1)

    def split(y):
        return y.view(n, t, attention.num_heads, -1)

    q, k = F.elu(split(attention.q(joint))) + 1, F.elu(split(attention.k(joint))) + 1
    v = split(attention.v(x)) / t
    kv = torch.einsum("nshd,nshv->nhdv", k, v)
    z_inv = 1 / (torch.einsum("nlhd,nhd->nlh", q, k.sum(1)) + 1e-6)
    return (torch.einsum("nlhd,nhdv,nlh->nlhv", q, kv, z_inv) * t).reshape(n, t, -1)


def classes(layer, x, text, pool):
    """x: (B, C, T, h, w); text: (B, T, C)."""
    b, c, t, height, width = x.shape
    y = F.avg_pool3d(x, (1, pool, pool))
    h, w = y.shape[-2:]
    if t < layer.pad_len:
        pads = layer.padding_tokens[..., None, None].permute(0, 2, 1, 3, 4)
        y = torch.cat([y, pads.expand(b, c, layer.pad_len - t, h, w)], dim=2)
        pads = layer.padding_guidance.expand(b, layer.pad_len - t, -1)
        text = torch.cat([text, pads], dim=1)
    text = text[:, None].expand(-1, h * w, -1, -1).flatten(0, 1)
    y = y.permute(0, 3, 4, 2, 1).reshape(b * h * w, y.shape[2], c)
    y = y + linear_attention(layer.attn, layer.norm1(y), text)
    y = y + layer.mlp(layer.norm2(y))
    y = y.view(b, h, w, -1, c).permute(0, 3, 4, 1, 2).flatten(0, 1)
    y = F.interpolate(y, (height, width), mode="bilinear", align_corners=True)
    y = y.view(b, -1, c, height, width).transpose(1, 2)[:, :, :t]
    return x + y


def decoder_stage(stage, x, guidance, t):
    """x: (B T, C, h, w); guidance: (B, G, 2h, 2w)."""
    x = stage.up(x)
    x = torch.cat([x, guidance.repeat_interleave(t, dim=0)], dim=1)
    x = F.relu(stage.norm1(stage.conv1(x)))
    return F.relu(stage.norm2(stage.conv2(x)))


def plain_forward(model, image, text, guidance, trace=None):
    """``model(image, text, guidance)`` in plain form; ``trace`` collects intermediates."""
    trace = {} if trace is None else trace
    pool = model.train_pool if model.training else model.test_pool
    b = len(image)
    text = F.normalize(text, dim=-1).unsqueeze(0).expand(b, -1, -1)
    cost = torch.einsum("bchw,btc->bthw", F.normalize(image, dim=1), text)
    total, kept = cost.shape[1], None
    if model.max_classes is not None and total > model.max_classes:
        kept = cost.flatten(2).amax(-1).topk(model.max_classes, dim=1).indices
        text = torch.stack([one[index] for one, index in zip(text, kept)])
        cost = torch.einsum("bchw,btc->bthw", F.normalize(image, dim=1), text)
    t, size = cost.shape[1], cost.shape[2:]
    x = model.cost_embedding(cost.reshape(b * t, 1, *size))
    x = x.view(b, t, -1, *size).transpose(1, 2)
    trace["corr"], trace["conv1"] = cost, x
    appearance = F.relu(model.appearance_projection(image))
    projected = F.relu(model.text_projection(text))
    trace["appearance"], trace["text"] = appearance, projected
    for number, layer in enumerate(model.layers):
        x = trace[f"swin{number}"] = spatial(
            layer.spatial, x, appearance, layer.spatial.window_size
        )
        x = trace[f"class{number}"] = classes(layer.classes, x, projected, pool)
    x = x.transpose(1, 2).flatten(0, 1)
    for stage, project, g in zip(model.decoder.stages, model.guidance_projections, guidance):
        x = decoder_stage(stage, x, F.relu(project(g)), t)
    logits = model.decoder.head(x).view(b, t, *x.shape[2:])
    if kept is None:
        return logits
    full = logits.new_full((b, total, *logits.shape[2:]), -100.0)
    for i, index in enumerate(kept):
        full[i, index] = logits[i]
    return full
