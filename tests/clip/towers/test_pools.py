"""How tokens become an image embedding, and a patch a vector of its space (encoders spec 2.2, 7).

The file takes about 2 s.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from mmclipdis.clip.towers.build import OpenCLIPViT
from mmclipdis.clip.towers.pools import ClsPool, MapPool, MeanPool
from mmclipdis.clip.towers.readout import Readout, get_readout

TOLERANCE = dict(rtol=0, atol=1e-12)
PRINTED = dict(rtol=0, atol=6e-7)


def filled(module: nn.Module) -> nn.Module:
    """Rule F of the spec: every number of every parameter by its place."""
    module.double()
    norms = {n for n, m in module.named_modules() if isinstance(m, nn.LayerNorm)}
    for j, (name, parameter) in enumerate(sorted(module.named_parameters())):
        n = torch.arange(parameter.numel(), dtype=torch.float64)
        fill = 0.5 * torch.sin(0.7 * n + 1.3 * j + 0.1)
        owner, _, leaf = name.rpartition(".")
        fill = 1 + 0.2 * fill if owner in norms and leaf == "weight" else fill
        parameter.data = fill.view_as(parameter)
    return module


def golden_pool() -> Any:
    norm = partial(nn.LayerNorm, eps=1e-6)
    return filled(AttentionPoolLatent(4, num_heads=2, mlp_ratio=2, norm_layer=norm)).eval()


def golden_tokens(count: int = 3, channels: int = 4) -> Tensor:
    """Tokens G(n)."""
    i, c = torch.arange(float(count)).double()[:, None], torch.arange(float(channels)).double()
    return (0.3 * i - 0.2 * c + 0.05 * i * c)[None]


def tower_of(pool: Any) -> Any:
    """As much of a tower as a pool asks for."""
    return SimpleNamespace(attn_pool=pool, head=nn.Identity(), norm_post=nn.Identity())


def test_golden_map_and_embedding() -> None:
    tower, x = tower_of(golden_pool()), golden_tokens()
    with torch.no_grad():
        found, pooled = MapPool().project(tower, x)[0], MapPool().pooled(tower, x)[0]
    wanted = [
        [-0.892613, 0.459627, 0.102563, 1.040793],
        [-0.876646, 0.464535, 0.043668, 1.165997],
        [-0.862085, 0.466074, -0.019045, 1.288646],
    ]
    torch.testing.assert_close(found, torch.tensor(wanted).double(), **PRINTED)
    embedding = torch.tensor([-0.860575, 0.457305, 0.045145, 1.181049]).double()
    torch.testing.assert_close(pooled, embedding, **PRINTED)


def test_a_patch_is_what_the_pool_makes_of_it_alone() -> None:
    pool, x = golden_pool(), torch.randn(2, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        alone = pool(x.reshape(-1, 1, 4)).view(2, 5, 4)
        torch.testing.assert_close(MapPool().project(tower_of(pool), x), alone, **TOLERANCE)


def test_equal_tokens_are_all_the_embedding() -> None:
    tower, x = tower_of(golden_pool()), torch.randn(2, 1, 4, dtype=torch.float64).expand(-1, 6, -1)
    with torch.no_grad():
        found, pooled = MapPool().project(tower, x), MapPool().pooled(tower, x)
    torch.testing.assert_close(found, pooled[:, None].expand_as(found), **TOLERANCE)


def test_without_query_and_mlp_the_embedding_is_the_mean_of_the_map() -> None:
    pool = golden_pool()
    for layer in (pool.q, pool.mlp.fc2):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    tower, x = tower_of(pool), golden_tokens()
    with torch.no_grad():
        mean, pooled = MapPool().project(tower, x).mean(dim=1)[0], MapPool().pooled(tower, x)[0]
    torch.testing.assert_close(mean, pooled, **TOLERANCE)
    wanted = torch.tensor([-0.734454, 0.416581, -0.163786, 0.902772]).double()
    torch.testing.assert_close(mean, wanted, **PRINTED)


@pytest.mark.parametrize("terms", ["kk", "vv"])
def test_attention_inside_the_pool_is_that_of_patches_by_their_keys_or_values(terms: str) -> None:
    pool, x = golden_pool(), torch.randn(1, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        key, value = pool.kv(x)[0].chunk(2, dim=-1)
        like = key if terms == "kk" else value
        mixed = torch.zeros_like(value)
        for head in range(2):
            part = slice(2 * head, 2 * head + 2)
            for i in range(5):
                logits = torch.stack([like[i, part] @ like[j, part] / 2**0.5 for j in range(5)])
                mixed[i, part] = logits.softmax(dim=0) @ value[:, part]
        a = pool.proj(mixed)
        wanted = a + pool.mlp(pool.norm(a))
        found = MapPool().project(tower_of(pool), x, terms)[0]
    torch.testing.assert_close(found, wanted, **TOLERANCE)


@pytest.mark.parametrize("terms", ["qq", "qk", "csa", "all"])
def test_queries_of_the_pool_are_of_no_patch(terms: str) -> None:
    with pytest.raises(ValueError, match="the q of an attention pool was only ever of its learned"):
        get_readout(dict(attention="qk", residual="token", ffn=True, pool_attention=terms))


def test_a_tower_without_an_attention_pool_refuses_attention_in_it() -> None:
    for pool in (ClsPool(), MeanPool()):
        pool.check("identity")
        with pytest.raises(
            ValueError, match="pool_attention='kk': the tower has no attention pool"
        ):
            pool.check("kk")
    MapPool().check("kk")
    assert Readout(("qk",)).pool_attention == "identity"


# --- CLIPA: the mean of the patches ------------------------------------------------------------


def clipa() -> OpenCLIPViT:
    torch.manual_seed(0)
    visual = open_clip.transformer.VisionTransformer(
        *(32, 8, 32, 2, 2, 4.0),
        output_dim=16,
        pool_type="avg",
        no_ln_pre=True,
        final_ln_after_pool=True,
        pos_embed_type="sin_cos_2d",
    )
    tower = OpenCLIPViT(visual.double()).eval()
    tower.visual.ln_post.weight.data.uniform_(0.5, 1.5)
    tower.visual.ln_post.bias.data.normal_()
    return tower


def test_clipa_is_the_mean_of_the_patches_without_cls() -> None:
    tower, images = clipa(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        features = tower.forward_dense(images, get_readout("vanilla"), with_cls=True)
        x = tower.visual.transformer(tower.embed(images))
        wanted = tower.visual.ln_post(x[:, 1:].mean(dim=1)) @ tower.visual.proj
        torch.testing.assert_close(tower.encode_image(images), wanted, **TOLERANCE)
        torch.testing.assert_close(tower.encode_image(images), tower.visual(images), **TOLERANCE)
        torch.testing.assert_close(features.cls, wanted, **TOLERANCE)
        own = tower.visual.ln_post(x[:, 1:]) @ tower.visual.proj
    torch.testing.assert_close(features.map.flatten(2).mT, own, **TOLERANCE)
    # the norm stands behind the mean, so the two differ
    assert (features.map.mean(dim=(2, 3)) - wanted).abs().max() > 1e-3


def test_equal_patches_are_all_the_embedding_of_clipa() -> None:
    tower = clipa()
    tokens = torch.randn(1, 1, 32, dtype=torch.float64).expand(-1, 17, -1)
    with torch.no_grad():
        found, pooled = tower.to_joint(tokens[:, 1:]), tower.pool.pooled(tower, tokens)
    torch.testing.assert_close(found, pooled[:, None].expand_as(found), **TOLERANCE)
