"""The last block on tokens of any grid, against formulas written out in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmclipdis.clip.towers.last_block import LastBlockParts
from mmclipdis.models.vfm import TimmVFM

TINY: dict[str, Any] = dict(depth=2, embed_dim=24, num_heads=2)


def tiny(name: str, **options: Any) -> TimmVFM:
    """A small model in float64 with weights that leave nothing at its initial zero or one."""
    vfm = TimmVFM(name, TINY, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in vfm.parameters():
        parameter.normal_(0, 0.3, generator=generator)
    return vfm.double()


def normed(x: np.ndarray, norm: Any) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + norm.eps)
    return unit * norm.weight.numpy() + norm.bias.numpy()


def linear(x: np.ndarray, layer: Any) -> np.ndarray:
    return x @ layer.weight.numpy().T + layer.bias.numpy()


def naive(vfm: TimmVFM, parts: LastBlockParts) -> np.ndarray:
    """``z = input + W_o MHA(q, k, v) + b_o``; ``z + MLP(norm2(z))``, head by head, ``(n, D)``."""
    block = vfm.model.blocks[-1]
    x, q, k, v = (p[0].flatten(1).T.numpy() for p in (parts.input, parts.q, parts.k, parts.v))
    heads = []
    for columns in (slice(0, 12), slice(12, 24)):
        logits = q[:, columns] @ k[:, columns].T / math.sqrt(12)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, columns])
    scales = [getattr(block, name) for name in ("ls1", "ls2")]
    first, second = (getattr(s, "gamma", torch.ones(24)).detach().numpy() for s in scales)
    x = x + first * linear(np.concatenate(heads, axis=1), block.attn.proj)
    hidden = linear(normed(x, block.norm2), block.mlp.fc1)
    error = np.vectorize(math.erf)(hidden / math.sqrt(2))
    return x + second * linear(hidden * (1 + error) / 2, block.mlp.fc2)


def random_parts(grid: tuple[int, int], dtype: torch.dtype = torch.float64) -> LastBlockParts:
    generator = torch.Generator().manual_seed(1)
    return LastBlockParts(
        *(torch.randn(1, 24, *grid, dtype=dtype, generator=generator) for _ in range(4))
    )


@pytest.mark.parametrize("name", ["dino-B-8", "dinov2-B"])
def test_it_is_the_block_after_the_final_norm(name: str) -> None:
    """OV-Stitcher's, on another grid than any image was; DINOv2 has a LayerScale."""
    vfm, parts = tiny(name), random_parts((3, 5))
    found = vfm.finish_last_block(parts)
    assert found.shape == (1, 24, 3, 5)
    np.testing.assert_allclose(found[0].flatten(1).T.numpy(), naive(vfm, parts), rtol=1e-10)


@pytest.mark.parametrize("name", ["dino-B-8", "dinov2-B"])
def test_the_parts_are_the_patches_of_the_last_block(name: str) -> None:
    vfm = tiny(name)
    side, prefix = vfm.patch_size[0], vfm.model.num_prefix_tokens
    images = torch.randn(2, 3, 2 * side, 3 * side + 1, dtype=torch.float64)
    seen: dict[str, Tensor] = {}
    block = vfm.model.blocks[-1]
    block.register_forward_pre_hook(lambda _, args: seen.update(input=args[0]))
    block.attn.qkv.register_forward_hook(lambda *args: seen.update(qkv=args[2]))
    vfm(images)
    raw, qkv = seen["input"][:, prefix:].numpy(), seen["qkv"][:, prefix:].numpy()
    parts = vfm.last_block_parts(images)
    final = normed(raw, vfm.model.norm)
    for found, expected in zip(
        (parts.input, parts.q, parts.k, parts.v), (final, *np.split(qkv, 3, axis=-1)), strict=True
    ):
        assert found.shape == (2, 24, 2, 3)
        np.testing.assert_allclose(found.flatten(2).mT.numpy(), expected, rtol=1e-8, atol=1e-10)


def test_a_given_precision_is_that_of_the_block() -> None:
    vfm = tiny("dino-B-8").float()
    half = TimmVFM("dino-B-8", TINY, precision="bfloat16")
    half.load_state_dict(vfm.state_dict())
    images = torch.randn(1, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.float16):  # which the precision overrides
        parts = half.last_block_parts(images)
        found = half.finish_last_block(parts)
    assert {parts.q.dtype, found.dtype} == {torch.float32}
    expected = vfm.finish_last_block(vfm.last_block_parts(images))
    assert torch.nn.functional.cosine_similarity(found, expected, dim=1).min() > 0.99


def test_no_tensor_holds_the_weights_of_all_pairs() -> None:
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            made = [x for x in (out if isinstance(out, tuple) else (out,)) if torch.is_tensor(x)]
            largest = max([largest, *(x.numel() for x in made)])
            return out

    vfm, parts = tiny("dino-B-8").float(), random_parts((24, 24), torch.float32)
    with Watch():
        vfm.finish_last_block(parts)
    assert 0 < largest <= 4 * 24 * 24 * 24  # the widest is the hidden layer of the MLP
    assert largest < (24 * 24) ** 2
