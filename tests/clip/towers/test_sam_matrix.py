"""The matrix of SAM's last block: golden values, a naive reference, timm's own attention."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers import sam_matrix as module
from mmclipdis.clip.towers.last_block import project
from mmclipdis.clip.towers.sam_matrix import check_sam, sam_matrix, sam_mixed
from tests.faults.endings import raises

TWO_HEADS = (
    [
        [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.4, 0.5]],
        [[0.6, 0.2, 0.2], [0.3, 0.3, 0.4], [0.2, 0.2, 0.6]],
    ],
    [[[1, 0], [1, 1], [0, 1]], [[1, 0], [0, 1], [-1, 0]]],
)
ONE_HEAD = (
    [[[0.4, 0.3, 0.2, 0.1], [0.1, 0.4, 0.3, 0.2], [0.2, 0.1, 0.4, 0.3], [0.3, 0.1, 0.2, 0.4]]],
    [[[1, 0], [0.2, 1], [-1, 0.1], [-1, -0.1]]],
)
T1 = [[0.785714, 0.214286, 0], [0.153846, 0.615385, 0.230769], [0, 0.266667, 0.733333]]
T2 = [
    [0.571429, 0.428571, 0, 0],
    [0, 1, 0, 0],
    [0, 0, 0.571429, 0.428571],
    [0, 0, 0.333333, 0.666667],
]
T3 = [[1, 0, 0, 0], *T2[1:]]


def tensors(given: Any) -> tuple[Tensor, Tensor]:
    attention, values = (torch.tensor(part, dtype=torch.float64) for part in given)
    return attention, values


@pytest.mark.parametrize(
    ("given", "kappa", "refine_neg", "wanted"),
    [(TWO_HEADS, 1.2, True, T1), (ONE_HEAD, 1.2, True, T2), (ONE_HEAD, 1.2, False, T3)],
    ids=["T1", "T2", "T3"],
)
def test_golden_values(given: Any, kappa: float, refine_neg: bool, wanted: Any) -> None:
    """Whole, and row by row."""
    attention, values = tensors(given)
    found = sam_matrix(attention, values, kappa, refine_neg)
    torch.testing.assert_close(found, torch.tensor(wanted).double(), atol=6e-7, rtol=0)
    rows = [
        sam_matrix(attention[:, i : i + 1], values, kappa, refine_neg, first=i)
        for i in range(len(wanted))
    ]
    torch.testing.assert_close(torch.cat(rows), found)


def test_golden_value_without_a_threshold() -> None:
    found = sam_matrix(*tensors(ONE_HEAD), kappa=0)
    torch.testing.assert_close(found[1], torch.tensor([0.2, 0.8, 0, 0]).double())


def test_a_row_that_keeps_nothing_keeps_itself() -> None:
    """The published code has 0/0 there."""
    attention, values = tensors(ONE_HEAD)
    attention[:, 1] = torch.tensor([0.5, 0.0, 0.5, 0.0])
    values[:, 2] = 0
    found = sam_matrix(attention, values, kappa=3.0)
    assert found[1].tolist() == [0, 1, 0, 0]
    assert found[2].tolist() == [0, 0, 1, 0]
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(4).double())


def tiny_sam(**changes: Any) -> Any:
    """Grid 5 x 5, two blocks, the last one global, nothing at its initial zero."""
    kwargs = dict(img_size=80, embed_dim=24, depth=2, num_heads=3, window_size=3, num_classes=0)
    kwargs |= dict(global_attn_indexes=(1,), use_rel_pos=True, **changes)
    model = timm.create_model("samvit_base_patch16", **kwargs)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.4, generator=generator)
    return model.double().eval()


def naive(block: Any, x: Tensor, tokens: Tensor, kappa: float, refine_neg: bool) -> Tensor:
    """Whole matrices, head by head and token by token; x (5, 5, 24), tokens (C, h, w)."""
    attn, size, dim = block.attn, 5, 8
    q, k, v = attn.qkv(block.norm1(x)).view(25, 3, 3, dim).permute(1, 2, 0, 3)
    channels, height, width = tokens.shape
    valid = [y * size + x for y in range(height) for x in range(width)]
    weights = torch.zeros(3, 25, 25).double()
    for head in range(3):
        for i in range(25):
            for j in range(25):
                bias = q[head, i] @ attn.rel_pos_h[i // size - j // size + size - 1]
                bias = bias + q[head, i] @ attn.rel_pos_w[i % size - j % size + size - 1]
                weights[head, i, j] = dim**-0.5 * q[head, i] @ k[head, j] + bias
    weights = weights.softmax(dim=-1)[:, valid][:, :, valid]
    unit = F.normalize(v[:, valid], dim=-1)
    cosines = unit @ unit.mT
    out = []
    for i in range(len(valid)):
        threshold = kappa * float(cosines[:, i].mean())
        if threshold < 0 and not refine_neg:
            threshold = 0.6
        row = (weights[:, i] * (cosines[:, i] > min(0.9, threshold))).mean(dim=0)
        out.append(row / row.sum() @ tokens.flatten(1).T)
    return torch.stack(out).T.reshape(channels, height, width)


@pytest.mark.parametrize("row_bytes", [32e6, 1])
@pytest.mark.parametrize(
    ("size", "kappa", "refine_neg"), [((5, 5), 1.2, True), ((3, 5), 3.0, False), ((5, 4), 0, True)]
)
def test_equals_a_naive_reference(
    size: Any, kappa: float, refine_neg: bool, row_bytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an image that fills SAM's grid or not, in one block of rows or in many."""
    monkeypatch.setattr(module, "ROW_BYTES", row_bytes)
    softmax, seen = torch.softmax, []
    monkeypatch.setattr(
        module.torch, "softmax", lambda x, dim: seen.append(tuple(x.shape)) or softmax(x, dim)
    )
    block = tiny_sam().blocks[-1]
    x, tokens = torch.randn(5, 5, 24).double(), torch.randn(7, *size).double()
    with torch.no_grad():
        parts = tuple(part[0] for part in project(block, x.permute(2, 0, 1)[None], "qkv"))
        found = sam_mixed(block, parts, tokens, kappa, refine_neg)
        torch.testing.assert_close(found, naive(block, x, tokens, kappa, refine_neg))
    height, width = size  # an image's row of queries at a time, or all of them
    assert seen == ([(3, width, 25)] * height if row_bytes == 1 else [(3, height * width, 25)])


def test_its_attention_is_that_of_timm() -> None:
    """Where all is kept and the values are mixed: the attention output of each head, before it."""
    block = tiny_sam().blocks[-1]
    attn, x = block.attn, torch.randn(5, 5, 24).double()
    with torch.no_grad():
        q, k, v = (part[0] for part in project(block, x.permute(2, 0, 1)[None], "qkv"))
        heads = [part.unflatten(0, (3, -1)).permute(0, 2, 3, 1) for part in (q, k, v)]
        down, across = module._positions(attn, (5, 5))
        keys = heads[1].flatten(1, 2)
        weights = module._attention(heads[0][:, 2:4], keys, attn.scale, down[2:4], across)
        mixed = weights @ heads[2].flatten(1, 2)  # (3, 10, 8)
        out = attn.proj(mixed.transpose(0, 1).flatten(1))
        wanted = attn(block.norm1(x)[None])[0].flatten(0, 1)[10:20]
    torch.testing.assert_close(out, wanted)


def test_other_models_are_refused() -> None:
    dino = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=24)
    raises("'dino-B-16' is a VisionTransformer", check_sam, dino, "dino-B-16")
    kwargs = dict(img_size=80, embed_dim=24, depth=2, num_heads=3, window_size=3)
    windowed = timm.create_model("samvit_base_patch16", **kwargs, global_attn_indexes=(0,))
    raises("'sam-B' has window_size=3: ", check_sam, windowed, "sam-B")
    normed = tiny_sam(qk_norm=True)
    raises("normalised queries", check_sam, normed, "sam-B")
