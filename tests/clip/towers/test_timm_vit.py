"""ViTs of timm: SigLIP, PE, TIPS, DINOv2/3, MobileCLIP (encoders spec 2, 7).

Tiny ones with random weights; the file takes about 8 s.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS, Readout, get_readout
from mmclipdis.clip.towers.timm_vit import TimmViT, check_trunk, family_of

TOLERANCE = dict(rtol=0, atol=1e-11)
TINY = dict(embed_dim=48, depth=3, num_heads=3)

#: name -> (timm's name, pool, head, E, side of the native image, arguments)
KINDS: dict[str, tuple[Any, ...]] = {
    "siglip": ("vit_base_patch16_siglip_224", "map", "none", 48, 64, {}),
    "pe": ("vit_pe_core_base_patch16_224", "map", None, 32, 64, dict(ref_feat_shape=(4, 4))),
    "pe-no-cls": (
        *("vit_pe_core_gigantic_patch14_448", "map", None, 32, 56),
        dict(ref_feat_shape=(4, 4), mlp_ratio=2),
    ),
    "tips": ("vit_base_patch14_reg1_tipsv2", "token", "none", 48, 56, {}),
    "dinov3": ("vit_base_patch16_dinov3", "token", "none", 48, 64, {}),
    "dinov2": ("vit_base_patch14_reg4_dinov2", "token", "none", 48, 56, {}),
    "mobileclip2-l": ("vit_large_patch14_clip_224", "token", None, 32, 56, {}),
}
PREFIX = dict(zip(KINDS, (0, 1, 0, 2, 5, 5, 1), strict=True))


def tower_of(kind: str) -> TimmViT:
    """A random tower in double precision, norms and layer scales too."""
    return tower_from(*KINDS[kind])


def tower_from(name: str, pool: str, head: Any, channels: int, side: int, more: Any) -> TimmViT:
    vision = dict(
        timm_model_name=name,
        timm_pool=pool,
        timm_proj=head,
        timm_model_kwargs=dict(TINY, img_size=side) | more,
    )
    arch = dict(embed_dim=channels, vision_cfg=vision, text_cfg={})
    tower = build_image_tower(arch).double().eval()
    assert isinstance(tower, TimmViT)
    generator = torch.Generator().manual_seed(1)
    for parameter in tower.parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 0.2 * values if parameter.ndim > 1 else 0.5 + 0.1 * values
    return tower


def photo(tower: TimmViT, rows: int = 3, columns: int = 5) -> Tensor:
    height, width = tower.patch_size
    generator = torch.Generator().manual_seed(2)
    size = (1, 3, rows * height, columns * width)
    return torch.randn(size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_native_size_the_embedding_is_that_of_the_library(kind: str) -> None:
    tower = tower_of(kind)
    assert tower.prefix == PREFIX[kind]
    images = photo(tower, *tower.native_grid)
    vanilla = READOUTS["vanilla"]
    with torch.no_grad():
        wanted = tower.visual(images)
        torch.testing.assert_close(tower.encode_image(images), wanted, **TOLERANCE)
        features = tower.forward_dense(images, vanilla, with_cls=True)
    torch.testing.assert_close(features.cls, wanted, **TOLERANCE)
    trained = tower.forward_dense(images, vanilla, with_cls=True)  # with gradients, timm runs
    torch.testing.assert_close(trained.cls, wanted, **TOLERANCE)
    torch.testing.assert_close(trained.map, features.map, **TOLERANCE)


def last_input(tower: TimmViT, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Input of the last block and the rotary table, by timm's own blocks."""
    rope = tower.rope(images)
    x = tower.embed(images)
    for block in tower.blocks[:-1]:
        x = block(x) if rope is None else block(x, rope=rope)
    return x, rope


def turned(x: Tensor, table: Tensor, prefix: int, half: bool) -> Tensor:
    """Rotary positions by their formula, on the patches of ``(heads, L, d)``."""
    sine, cosine = table.double().chunk(2, dim=-1)
    part = x[:, prefix:]
    if half:
        first, second = part.chunk(2, dim=-1)
        other = torch.cat([-second, first], dim=-1)
    else:
        other = torch.stack([-part[..., 1::2], part[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([x[:, :prefix], part * cosine + other * sine], dim=1)


def naive_tokens(tower: TimmViT, images: Tensor, readout: Readout) -> Tensor:
    """Patch tokens of the last block by the formulas of a readout, head by head."""
    x, rope = last_input(tower, images)
    block, p = tower.blocks[-1], tower.prefix
    attention = block.attn
    normed = block.norm1(x)[0]
    weight, bias = attention.qkv.weight, attention.qkv.bias
    if getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    qkv = normed @ weight.T + (0 if bias is None else bias)
    q, k, v = qkv.view(-1, 3, 3, 16).permute(1, 2, 0, 3)  # 3 heads of width 16
    out = torch.zeros_like(v)
    for term in readout.attention:
        if term == "identity":
            out = out + v
            continue
        pair = {"q": q, "k": k, "v": v}
        one, other = pair[term[0]], pair[term[1]]
        if term == "qk" and rope is not None:
            half = bool(attention.rotate_half)
            one, other = turned(one, rope, p, half), turned(other, rope, p, half)
        out = out + (one @ other.mT / 4).softmax(dim=-1) @ v
    merged = attention.proj(attention.norm(out.transpose(0, 1).flatten(1)))[p:]
    gammas = [getattr(block, name, None) for name in ("gamma_1", "gamma_2")]
    if hasattr(block, "ls1"):
        gammas = [getattr(scale, "gamma", None) for scale in (block.ls1, block.ls2)]
    one, two = (torch.ones(48).double() if gamma is None else gamma for gamma in gammas)
    z = one * merged
    if readout.residual == "token":
        z = z + x[0, p:]
    return z + two * block.mlp(block.norm2(z)) if readout.ffn else z


@pytest.mark.parametrize("kind", ["siglip", "pe", "tips", "dinov3"])
@pytest.mark.parametrize("name", ["vanilla", "maskclip", "sclip", "clearclip", "csa", "kk", "vv"])
def test_readouts_are_their_formulas(kind: str, name: str) -> None:
    tower, readout = tower_of(kind), READOUTS[name]
    assert isinstance(readout, Readout)
    images = photo(tower)
    with torch.no_grad():
        found = tower.forward_dense(images, readout).map[0].flatten(1).T
        tokens = tower.trunk.norm(naive_tokens(tower, images, readout))
        if tower.trunk.attn_pool is not None:  # each token alone
            tokens = tower.trunk.attn_pool(tokens[:, None])
        wanted = tower.trunk.head(tokens)
    torch.testing.assert_close(found, wanted, **TOLERANCE)


def test_the_map_of_siglip_is_the_pool_on_each_token_alone() -> None:
    tower = tower_of("siglip")
    images = photo(tower, 4, 4)
    with torch.no_grad():
        tokens = tower.trunk.forward_features(images)[0]
        alone = tower.trunk.attn_pool(tokens[:, None])
        found = tower.forward_dense(images, READOUTS["vanilla"]).map[0].flatten(1).T
    torch.testing.assert_close(found, alone, **TOLERANCE)


def test_equal_tokens_are_all_the_embedding_of_pe() -> None:
    tower = tower_of("pe")
    tokens = torch.randn(1, 1, 48, dtype=torch.float64).expand(-1, 17, -1)
    with torch.no_grad():
        pooled, found = tower.pool.pooled(tower, tokens), tower.to_joint(tokens)
    torch.testing.assert_close(found, pooled[:, None].expand_as(found), **TOLERANCE)


def test_the_map_of_dinov3_is_that_of_timm_at_any_size() -> None:
    tower = tower_of("dinov3")
    images = photo(tower)
    with torch.no_grad():
        found = tower.forward_dense(images, READOUTS["vanilla"], intermediates=[0, 1])
        (wanted,) = tower.trunk.forward_intermediates(
            images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        blocks = tower.trunk.forward_intermediates(
            images, indices=[0, 1], norm=False, output_fmt="NCHW", intermediates_only=True
        )
    torch.testing.assert_close(found.map, wanted, rtol=0, atol=1e-6)  # timm's angles are fp32
    for mine, theirs in zip(found.intermediates, blocks, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_a_bias_of_keys_changes_kk_and_not_qk() -> None:
    tower = tower_of("siglip")
    images = photo(tower)

    def maps() -> list[Tensor]:
        with torch.no_grad():
            return [tower.forward_dense(images, READOUTS[name]).map for name in ("qk", "kk")]

    before = maps()
    tower.blocks[-1].attn.qkv.bias.data[48:96] += 1
    after = maps()
    torch.testing.assert_close(after[0], before[0], **TOLERANCE)
    assert (after[1] - before[1]).abs().max() > 1e-3


@pytest.mark.parametrize("is_rotary", [False, True])
def test_where_keys_are_turned_qk_sees_their_bias(is_rotary: bool) -> None:
    """A query times a turned bias depends on the place of the key; else softmax drops it."""
    tower = tower_of("dinov3")
    if not is_rotary:  # no angle: sine 0, cosine 1
        still = torch.cat([torch.zeros(15, 16), torch.ones(15, 16)], dim=1)
        tower.rope = lambda images: still  # type: ignore[method-assign]
    images = photo(tower)
    with torch.no_grad():
        before = tower.forward_dense(images, READOUTS["qk"]).map
        bias = torch.tensor([0.0, 1, 0], dtype=torch.float64).repeat_interleave(48)
        tower.blocks[-1].attn.qkv.bias = nn.Parameter(bias)
        change = (tower.forward_dense(images, READOUTS["qk"]).map - before).abs().max()
    assert change > 1e-2 if is_rotary else change < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_embedding_are_those_of_the_library(kind: str) -> None:
    found = []
    for is_library in (True, False):
        tower = tower_of(kind)
        images = photo(tower, *tower.native_grid)
        if is_library:
            embedding = tower.visual(images)
        else:
            embedding = tower.forward_dense(images, READOUTS["csa"], with_cls=True).cls
        embedding.square().sum().backward()
        found.append({n: p.grad for n, p in tower.named_parameters() if p.grad is not None})
    theirs, ours = found
    assert theirs.keys() == ours.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("kind", ["siglip", "pe"])
@pytest.mark.parametrize("terms", ["kk", "vv"])
def test_attention_in_the_pool_mixes_the_patches_alone(kind: str, terms: str) -> None:
    tower, images = tower_of(kind), photo(tower_of(kind))
    readout = get_readout(dict(attention="vv", residual="none", ffn=False, pool_attention=terms))
    tower.check_readout(readout)
    assert isinstance(readout, Readout)
    pool = tower.trunk.attn_pool
    with torch.no_grad():
        found = tower.forward_dense(images, readout).map[0].flatten(1).T
        x = tower.trunk.norm(naive_tokens(tower, images, readout))  # no CLS: (15, 48)
        heads = pool.num_heads
        k, v = (part.view(15, heads, -1).transpose(0, 1) for part in pool.kv(x).chunk(2, dim=-1))
        like = k if terms == "kk" else v
        mixed = (like @ like.mT / (48 // heads) ** 0.5).softmax(dim=-1) @ v
        a = pool.proj(mixed.transpose(0, 1).flatten(1))
        wanted = tower.trunk.head(a + pool.mlp(pool.norm(a)))
    torch.testing.assert_close(found, wanted, **TOLERANCE)


@pytest.mark.parametrize("kind", ["tips", "dinov3", "mobileclip2-l"])
def test_towers_of_a_cls_token_refuse_attention_in_a_pool(kind: str) -> None:
    readout = get_readout(dict(attention="qk", residual="token", ffn=True, pool_attention="vv"))
    with pytest.raises(ValueError, match="pool_attention='vv': the tower has no attention pool"):
        tower_of(kind).check_readout(readout)


def test_tips_is_maskclip_with_layer_scale() -> None:
    """The formula of its notebook: v, projection, scale, residual, FFN, final norm."""
    tower = tower_of("tips")
    images = photo(tower)
    with torch.no_grad():
        x, _ = last_input(tower, images)
        block = tower.blocks[-1]
        a = block.attn.proj(block.attn.qkv(block.norm1(x))[..., -48:])
        z = x + block.ls1.gamma * a
        z = z + block.ls2.gamma * block.mlp(block.norm2(z))
        wanted = tower.trunk.norm(z)[0, 2:]
        found = tower.forward_dense(images, READOUTS["maskclip"]).map[0].flatten(1).T
    torch.testing.assert_close(found, wanted, **TOLERANCE)


@pytest.mark.parametrize("kind", ["siglip", "pe-no-cls"])
@pytest.mark.parametrize(
    "readout",
    [
        "catseg",
        "corrclip",
        dict(deep=1, mid=0, summed=[0, 1]),
        dict(attention="qk", residual="cls"),
    ],
)
def test_readouts_of_cls_are_refused_where_there_is_none(kind: str, readout: Any) -> None:
    with pytest.raises(ValueError, match="needs the CLS token, and a tower pooled by attention"):
        tower_of(kind).check_readout(get_readout(readout))


@pytest.mark.parametrize("kind", ["siglip", "dinov3"])
def test_recomputed_blocks_have_the_same_gradients(kind: str) -> None:
    found = []
    for checkpoint in (False, True):
        tower = tower_of(kind)
        tower.grad_checkpointing = checkpoint
        tower.forward_dense(photo(tower), READOUTS["csa"]).map.square().sum().backward()
        found.append([p.grad for p in tower.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 20
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_batch_is_its_images_one_by_one_and_remainders_are_cut() -> None:
    tower = tower_of("pe")
    images = torch.randn(2, 3, 50, 85, dtype=torch.float64)
    with torch.no_grad():
        both = tower.forward_dense(images, READOUTS["csa"]).map
        one = tower.forward_dense(images[1:, :, :48, :80], READOUTS["csa"]).map
    assert both.shape == (2, 32, 3, 5)
    torch.testing.assert_close(both[1:], one, **TOLERANCE)


def test_the_sizes_of_mobileclip_b_are_those_of_its_stem() -> None:
    with torch.device("meta"):
        tower = build_image_tower("MobileCLIP-B")
        found = tower.forward_dense(torch.empty(1, 3, 224, 320), READOUTS["vanilla"]).map
        odd = tower.forward_dense(torch.empty(1, 3, 250, 330), READOUTS["vanilla"]).map
    assert tower.patch_size == (16, 16)
    assert tower.native_grid == (14, 14)
    assert tower.table_prefix == 0
    assert found.shape == (1, 512, 14, 20)
    assert odd.shape == (1, 512, 15, 20)


def test_mobileclip_b_is_that_of_the_library_through_its_convolutions() -> None:
    """Its stem is of 768 channels; CLS has no position."""
    one = dict(embed_dim=768, depth=1, num_heads=12)
    tower = tower_from("vit_base_mci_224", "token", None, 32, 64, one)
    images = photo(tower, 4, 4)
    with torch.no_grad():
        wanted, found = tower.visual(images), tower.encode_image(images)
        assert tower.forward_dense(photo(tower), READOUTS["csa"]).map.shape == (1, 32, 3, 5)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("kind", "mode", "antialias"),
    [
        ("siglip", "bicubic", False),
        ("pe", "bilinear", False),
        ("pe-no-cls", "bilinear", False),
        ("tips", "bicubic", True),
        ("dinov2", "bicubic", True),
        ("mobileclip2-l", "bicubic", False),
    ],
)
def test_positions_at_another_size_are_those_of_the_family(
    kind: str, mode: str, antialias: bool
) -> None:
    """Encoders spec 2.4: one axis shrinks, the other grows."""
    tower, images = tower_of(kind), photo(tower_of(kind))
    rows = tower.trunk.pos_embed[0]
    table = rows[len(rows) - 16 :].T.view(1, 48, 4, 4)
    resized = F.interpolate(table, size=(3, 5), mode=mode, align_corners=False, antialias=antialias)
    with torch.no_grad():
        found = tower.embed(images)[:, tower.prefix :]
        wanted = (tower.patches(images) + resized).flatten(2).mT
    torch.testing.assert_close(found, tower.trunk.norm_pre(wanted), **TOLERANCE)


def test_families_are_told_by_names() -> None:
    names = dict(
        vit_so400m_patch14_siglip_378="SigLIP",
        vit_pe_core_large_patch14_336="PE",
        vit_base_mci_224="MobileCLIP",
        vitamin_large_384="ViTamin",
        vit_giant_patch14_reg1_tipsv2="TIPS",
        eva02_base_patch16_clip_224="EVA-CLIP",
    )
    for name, family in names.items():
        found = family_of(name)
        assert found is not None and found.name == family
    assert family_of("vit_base_patch16_224") is None


def test_other_trunks_are_refused_by_what_they_have() -> None:
    tower = tower_of("siglip")
    tower.trunk.blocks[0].drop_path1 = nn.Dropout(0.1)
    with pytest.raises(ValueError, match="dropout, another kind of block; take one like"):
        check_trunk(tower.trunk)
    with pytest.raises(ValueError, match="Identity is no ViT of timm"):
        check_trunk(nn.Identity())
