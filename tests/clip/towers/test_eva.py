"""EVA02-CLIP's tower against timm, and against its last block written out from the formulas."""

from __future__ import annotations

import math
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.clip.towers.affinity import Guide
from mmclipdis.clip.towers.attention import run_block
from mmclipdis.clip.towers.block_reader import BlockReader, read_last_block
from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS, DualPath, Readout
from mmclipdis.clip.towers.rotary import rotary_table
from mmclipdis.clip.towers.timm_vit import TimmViT
from tests.clip.readouts import PLAIN_READOUTS, UNGUIDED_READOUTS, fitted
from tests.tiny import tiny_eva_arch

TOLERANCE = dict(rtol=0, atol=1e-10)
GRID = (3, 5)
SELF_SELF = ("qq", "kk", "vv", "csa", "all")


@pytest.fixture
def eva() -> TimmViT:
    """Float64 tower with random biases and norms (defaults would hide mistakes)."""
    torch.manual_seed(0)
    tower = build_image_tower(tiny_eva_arch()).double().eval()
    assert isinstance(tower, TimmViT)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return tower


@pytest.fixture
def wide() -> Tensor:
    """Two images of 3 x 5 patches and a rest that is cut off."""
    generator = torch.manual_seed(1)
    return torch.randn(2, 3, 14, 21, dtype=torch.float64, generator=generator)


@pytest.fixture
def tokens(eva: TimmViT) -> Tensor:
    generator = torch.manual_seed(2)
    return torch.randn(2, 1 + math.prod(GRID), eva.width, dtype=torch.float64, generator=generator)


@pytest.fixture
def rope() -> Tensor:
    return rotary_table(GRID, 16, (16, 16))


def norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    return centred / deviation * module.weight + module.bias


def linear(x: Tensor, module: nn.Linear) -> Tensor:
    out = x @ module.weight.T
    return out if module.bias is None else out + module.bias


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """RoPE of the patches of ``(B, heads, L, d)``, element by element (spec 4.4)."""
    sine, cosine = table.double().chunk(2, dim=1)
    out = x.clone()
    for k in range(x.shape[-1] // 2):
        even, odd = x[:, :, 1:, 2 * k], x[:, :, 1:, 2 * k + 1]
        out[:, :, 1:, 2 * k] = even * cosine[:, 2 * k] - odd * sine[:, 2 * k]
        out[:, :, 1:, 2 * k + 1] = odd * cosine[:, 2 * k + 1] + even * sine[:, 2 * k + 1]
    return out


def naive_block(block: Any, x: Tensor, readout: Readout, table: Tensor) -> Tensor:
    """Spec 1.2 with explicit ``L x L`` weights; patch tokens ``(B, N, D)``."""
    attn, d = block.attn, 16
    y = norm(x, block.norm1)
    parts = {
        name: linear(y, getattr(attn, f"{name}_proj")).unflatten(2, (-1, d)).transpose(1, 2)
        for name in "qkv"
    }
    s = d**-0.5 if readout.scale == "sqrt" else 1.0
    weights = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype)
    for term in readout.attention:
        if term == "identity":
            weights = weights + torch.eye(x.shape[1], dtype=x.dtype)
            continue
        if term == "qk":
            logits = rotated(parts["q"], table) @ rotated(parts["k"], table).transpose(-1, -2)
        elif term == "qkv":
            logits = sum(p @ p.transpose(-1, -2) for p in parts.values()) / 3
        else:
            logits = parts[term[0]] @ parts[term[1]].transpose(-1, -2)
        weights = weights + (s * logits).softmax(dim=-1)
    out = (weights @ parts["v"]).transpose(1, 2).flatten(2)
    out = linear(norm(out, attn.norm), attn.proj)
    out = out + {"token": x, "cls": x[:, :1], "none": 0}[readout.residual]
    if readout.ffn:
        mlp, y = block.mlp, norm(out, block.norm2)
        gate = linear(y, mlp.fc1_g)
        hidden = gate / (1 + (-gate).exp()) * linear(y, mlp.fc1_x)
        out = out + linear(norm(hidden, mlp.norm), mlp.fc2)
    return out[:, 1:]


@pytest.mark.parametrize(
    "attention",
    [("qk",), ("qq",), ("kk",), ("vv",), ("qkv",), ("identity",), ("qq", "kk"), ("qk", "vv")],
)
@pytest.mark.parametrize(("residual", "ffn"), [("token", True), ("cls", True), ("none", False)])
@pytest.mark.parametrize("scale", ["sqrt", "none"])
@pytest.mark.parametrize("gradients", [True, False])
def test_every_combination_equals_the_formula(
    eva, tokens, rope, attention, residual, ffn, scale, gradients
):
    readout = Readout(attention, residual, ffn, scale)
    with torch.set_grad_enabled(gradients):
        got = read_last_block(eva.blocks[-1], tokens, readout, rope)
    torch.testing.assert_close(got, naive_block(eva.blocks[-1], tokens, readout, rope), **TOLERANCE)


def test_the_rotary_table_is_the_formula_on_a_grid_that_is_not_square():
    height, width, half = 3, 5, 32
    table = rotary_table((height, width), 64, (16, 16))
    for y in range(height):
        for x in range(width):
            angles = [
                position * 10000 ** (-2 * (j // 2) / half)
                for position in (y * 16 / height, x * 16 / width)
                for j in range(half)
            ]
            expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert table[y * width + x].tolist() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("gradients", [True, False])
def test_the_ordinary_block_is_timms(eva, tokens, rope, gradients):
    block, before = eva.blocks[1], tokens.clone()
    expected = block(tokens, rope=rope)
    with torch.set_grad_enabled(gradients):
        got = run_block(block, tokens, rope)
    torch.testing.assert_close(got, expected, **TOLERANCE)
    reader = BlockReader(block, tokens, rope)
    torch.testing.assert_close(reader.cls(), expected[:, :1], **TOLERANCE)
    torch.testing.assert_close(reader.ordinary(), expected, **TOLERANCE)
    assert torch.equal(tokens, before)


def test_layer_scale_multiplies_both_branches(tokens, rope):
    tower = build_image_tower(tiny_eva_arch(init_values=0.25)).double().eval()
    block = tower.blocks[-1]
    with torch.no_grad():
        got = run_block(block, tokens, rope)
        torch.testing.assert_close(got, block(tokens, rope=rope), **TOLERANCE)
        scaled = read_last_block(block, tokens, READOUTS["qq"])
        block.gamma_1.fill_(1.0)
        plain = read_last_block(block, tokens, READOUTS["qq"])
    torch.testing.assert_close(scaled, 0.25 * plain, **TOLERANCE)


def test_qk_without_the_table_of_its_grid_is_an_error(eva, tokens):
    for run in (
        lambda: read_last_block(eva.blocks[-1], tokens, READOUTS["vanilla"]),
        lambda: run_block(eva.blocks[-1], tokens),
    ):
        with pytest.raises(ValueError, match="'qk' of an EVA block needs rope"):
            run()


def test_native_size_equals_open_clips_own_model(eva):
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    features = eva.forward_dense(images, READOUTS["csa"], intermediates=(-1, 0), with_cls=True)
    expected = eva.visual(images)
    torch.testing.assert_close(eva.encode_image(images), expected, **TOLERANCE)
    torch.testing.assert_close(features.cls, expected, **TOLERANCE)
    outputs = eva.visual.trunk.forward_intermediates(
        images, indices=[0, 2], intermediates_only=True
    )
    torch.testing.assert_close(features.intermediates, (outputs[1], outputs[0]), **TOLERANCE)
    torch.testing.assert_close(eva.forward_blocks(images, (0, 2)), tuple(outputs), **TOLERANCE)
    vanilla = eva.forward_dense(images, READOUTS["vanilla"]).map
    tokens = eva.visual.trunk.forward_head(eva.visual.trunk.forward_features(images)[:, 1:2])
    torch.testing.assert_close(vanilla[:, :, 0, 0], tokens, **TOLERANCE)


def test_a_wide_image_equals_timms_trunk_set_to_that_size(eva, wide):
    eva.positions = "antialias"  # timm's rule
    got = eva.encode_image(wide)
    eva.visual.trunk.set_input_size((12, 20))
    expected = eva.visual(wide[:, :, :12, :20])
    # timm resamples positions in fp32
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN_READOUTS)
def test_dense_map_of_a_wide_image_equals_the_formula(eva, wide, name):
    x = eva.embed(wide)
    table = torch.cat([eva.position_table[:1], resampled(eva.position_table[1:], GRID)])
    conv = eva.visual.trunk.patch_embed.proj
    patches = F.conv2d(wide, conv.weight, conv.bias, stride=4).flatten(2).transpose(1, 2)
    cls = eva.visual.trunk.cls_token.expand(2, -1, -1)
    torch.testing.assert_close(x, torch.cat([cls, patches], dim=1) + table, **TOLERANCE)

    rope = rotary_table(GRID, 16, (16, 16))
    inputs = [x]
    for block in eva.blocks:
        inputs.append(block(inputs[-1], rope=rope))
    readout: Any = READOUTS[name]
    if isinstance(readout, DualPath):
        readout = DualPath(2)
        expected = inputs[1][:, 1:]
        for index in (1, 2):
            values = naive_block(eva.blocks[index], inputs[index], Readout(("vv",)), rope)
            expected = expected + values
    else:
        expected = naive_block(eva.blocks[-1], inputs[-2], readout, rope)
    trunk = eva.visual.trunk
    expected = linear(norm(expected, trunk.norm), trunk.head).transpose(1, 2).unflatten(2, GRID)
    got = eva.forward_dense(wide, readout, with_cls=True)
    torch.testing.assert_close(got.map, expected, **TOLERANCE)
    torch.testing.assert_close(got.cls, eva.encode_image(wide), **TOLERANCE)


def resampled(table: Tensor, grid: tuple[int, int]) -> Tensor:
    side = math.isqrt(len(table))
    map_ = table.T.reshape(1, -1, side, side)
    return F.interpolate(map_, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T


def test_context_is_the_projection_before_rope_with_heads_side_by_side(eva, wide):
    got = eva.forward_dense(wide, READOUTS["csa"], context=("q", "k", "v")).context
    x, rope = eva.embed(wide), eva.rope(wide)
    for block in eva.blocks[:-1]:
        x = block(x, rope=rope)
    y = norm(x, eva.blocks[-1].norm1)[:, 1:]
    for name in "qkv":
        expected = linear(y, getattr(eva.blocks[-1].attn, f"{name}_proj"))
        expected = expected.transpose(1, 2).unflatten(2, GRID)
        torch.testing.assert_close(got[name], expected, **TOLERANCE)


@pytest.mark.parametrize("name", UNGUIDED_READOUTS)
def test_a_batch_equals_its_images_one_by_one(eva, wide, name):
    readout = fitted(name)
    batch = eva.forward_dense(wide, readout).map
    single = torch.cat([eva.forward_dense(image[None], readout).map for image in wide])
    torch.testing.assert_close(batch, single, **TOLERANCE)


@pytest.mark.parametrize("name", SELF_SELF)
def test_rope_does_not_enter_the_self_self_terms(eva, tokens, name):
    block = eva.blocks[-1]
    plain = read_last_block(block, tokens, READOUTS[name])
    for grid in (GRID, GRID[::-1]):
        table = rotary_table(grid, 16, (16, 16))
        assert torch.equal(read_last_block(block, tokens, READOUTS[name], table), plain)


def test_neighbours_and_maps_of_other_blocks_equal_the_formula(eva, wide):
    """Queries and keys of other blocks are turned as in their own attention; ``k k^T`` is not."""
    readout = Readout(dict(kk=1.4, layers=0.6), layers=(0, -1), neighbours=2.0)
    rope, inputs = rotary_table(GRID, 16, (16, 16)), [eva.embed(wide)]
    for block in eva.blocks:
        inputs.append(block(inputs[-1], rope=rope))

    def split(index: int, part: str) -> Tensor:
        y = norm(inputs[index], eva.blocks[index].norm1)
        projected = linear(y, getattr(eva.blocks[index].attn, f"{part}_proj"))
        return projected.unflatten(2, (-1, 16)).transpose(1, 2)

    places = [(y, x) for y in range(GRID[0]) for x in range(GRID[1])]
    bias = torch.zeros(16, 16, dtype=torch.float64)
    bias[1:, 1:] = torch.tensor(
        [[math.exp(-((a - c) ** 2 + (b - d) ** 2) / 8) for c, d in places] for a, b in places]
    )
    k, v = split(2, "k"), split(2, "v")
    weights = 1.4 * (k @ k.mT / 4 + bias).softmax(dim=-1)
    for index in (0, 2):
        q, k = rotated(split(index, "q"), rope), rotated(split(index, "k"), rope)
        weights = weights + 0.3 * (q @ k.mT / 4).softmax(dim=-1)
    attn, trunk = eva.blocks[-1].attn, eva.visual.trunk
    out = linear(norm((weights @ v).transpose(1, 2).flatten(2), attn.norm), attn.proj)[:, 1:]
    expected = linear(norm(out, trunk.norm), trunk.head).mT.unflatten(2, GRID)
    got = eva.forward_dense(wide, readout).map
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)  # the bias is fp32


def test_an_affinity_equals_the_formula(eva, wide):
    tokens = torch.randn(2, 4, 2, 3, dtype=torch.float64)
    x, rope = eva.embed(wide), eva.rope(wide)
    for block in eva.blocks[:-1]:
        x = block(x, rope=rope)
    attn, trunk = eva.blocks[-1].attn, eva.visual.trunk
    v = linear(norm(x, eva.blocks[-1].norm1)[:, 1:], attn.v_proj).mT.unflatten(2, GRID)
    v = F.interpolate(v, (2, 3), mode="bilinear", align_corners=False).flatten(2).mT
    unit = F.normalize(tokens.flatten(2).mT, dim=-1)
    out = linear(norm((unit @ unit.mT).softmax(dim=-1) @ v, attn.norm), attn.proj)
    expected = linear(norm(out, trunk.norm), trunk.head).mT.unflatten(2, (2, 3))
    got = eva.forward_dense(wide, READOUTS["vfm"], guide=Guide(tokens)).map
    torch.testing.assert_close(got, expected, **TOLERANCE)


def test_only_what_a_readout_needs_is_projected(eva, wide):
    rows: dict[str, int] = {}
    for name in "qkv":
        layer = getattr(eva.blocks[-1].attn, f"{name}_proj")

        def count(_: Any, args: tuple[Tensor], __: Tensor, name: str = name) -> None:
            rows[name] = rows.get(name, 0) + args[0].shape[1]

        layer.register_forward_hook(count)
    expected = {"qq": "qv", "kk": "kv", "vv": "v", "maskclip": "v", "csa": "qkv", "vanilla": "qkv"}
    for readout, parts in expected.items():
        rows.clear()
        eva.forward_dense(wide, READOUTS[readout])
        assert rows == dict.fromkeys(parts, 1 + math.prod(GRID))
    rows.clear()
    eva.encode_image(wide)
    assert rows == {"q": 1, "k": 16, "v": 16}


def test_the_context_loss_of_qq_trains_the_query_and_not_what_lies_behind(eva, wide):
    eva.forward_dense(wide, READOUTS["qq"], context=("q",)).context["q"].square().sum().backward()
    last, trunk = eva.blocks[-1], eva.visual.trunk
    assert last.attn.q_proj.weight.grad.abs().max() > 0
    assert eva.blocks[0].attn.k_proj.weight.grad.abs().max() > 0
    behind = (last.attn.k_proj, last.attn.v_proj, last.attn.norm, last.attn.proj)
    for module in (*behind, last.norm2, last.mlp, trunk.norm, trunk.head):
        assert all(p.grad is None or p.grad.abs().max() == 0 for p in module.parameters())


def test_the_content_loss_of_qq_trains_what_the_map_comes_from(eva, wide):
    eva.forward_dense(wide, READOUTS["qq"]).map.square().sum().backward()
    attn = eva.blocks[-1].attn
    for module in (attn.q_proj, attn.v_proj, attn.norm, attn.proj):
        assert all(p.grad.abs().max() > 0 for p in module.parameters())
    assert attn.k_proj.weight.grad is None


def test_training_after_inference_mode_reads_the_cached_table(eva):
    images = torch.randn(1, 3, 28, 36, dtype=torch.float64)  # a grid that no other test has
    with torch.inference_mode():
        expected = eva.forward_dense(images, READOUTS["csa"]).map
    got = eva.forward_dense(images, READOUTS["csa"]).map
    got.square().sum().backward()
    torch.testing.assert_close(got.detach(), expected.clone(), **TOLERANCE)
    assert eva.rope(images) is eva.rope(images)


@pytest.mark.parametrize("name", ["vanilla", "maskclip", *SELF_SELF])
def test_bfloat16_autocast_stays_close(eva, wide, name):
    eva, wide = eva.float(), wide.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = eva.forward_dense(wide, READOUTS[name]).map
    full = eva.forward_dense(wide, READOUTS[name]).map
    assert half.shape == full.shape
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize("train", [False, True])
def test_under_autocast_the_residual_stream_is_fp32_as_timms(eva, train):
    trunk, images = eva.float().visual.trunk, torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.set_grad_enabled(train):
        embedded = eva.embed(images)
        expected, _ = trunk._pos_embed(trunk.patch_embed(images))
        outputs = eva.forward_dense(images, READOUTS["csa"], intermediates=(0, 1, 2)).intermediates
        wanted = trunk.forward_intermediates(images, intermediates_only=True)
    assert embedded.dtype == expected.dtype == torch.float32
    assert torch.equal(embedded, expected)
    for output, want in zip(outputs, wanted, strict=True):
        assert output.dtype == want.dtype == torch.float32
        torch.testing.assert_close(output, want, rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_tower_in_half_precision_runs(eva, wide, dtype):
    half = eva.to(dtype).forward_dense(wide.to(dtype), READOUTS["vanilla"]).map
    assert half.dtype == dtype and bool(half.isfinite().all())


@pytest.mark.parametrize("arch", ["EVA02-B-16", "EVA02-L-14-336"])
def test_released_towers_have_open_clips_names_and_sizes(arch):
    config = open_clip.get_model_config(arch)
    with torch.device("meta"):
        tower = build_image_tower(arch)
        model = open_clip.CustomTextCLIP(
            **{k: v for k, v in config.items() if k not in ("custom_text",)}
        )
    theirs = {k: v.shape for k, v in model.state_dict().items() if k.startswith("visual.")}
    assert {k: v.shape for k, v in tower.state_dict().items()} == theirs
    assert all(k.startswith("visual.trunk.") for k in theirs)
    expected = {
        "EVA02-B-16": (768, 512, 12, 12, (16, 16), (224, 224)),
        "EVA02-L-14-336": (1024, 768, 24, 16, (14, 14), (336, 336)),
    }
    sizes = (tower.width, tower.embed_dim, tower.depth, tower.heads)
    assert (*sizes, tower.patch_size, tower.image_size) == expected[arch]
    assert tower.positions == "size"
    assert build_image_tower(tiny_eva_arch(), "antialias").positions == "antialias"


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        (dict(use_post_norm=True), "another kind of block"),
        (dict(drop_path_rate=0.1), "another kind of block"),
        (dict(use_rot_pos_emb=False), "another kind of rotary positions"),
        (dict(patch_drop_rate=0.5), "dropout"),
        (dict(attn_drop_rate=0.5), "dropout"),
        (dict(pos_drop_rate=0.5), "dropout"),
    ],
)
def test_another_eva_is_refused(trunk, message):
    with pytest.raises(ValueError, match=f"ViT of timm with .*{message}.*take one like"):
        build_image_tower(tiny_eva_arch(**trunk))


def test_other_modules_of_timm_are_refused():
    with pytest.raises(ValueError, match="eva02_enormous_patch14_clip_224, which has no dense"):
        build_image_tower("EVA02-E-14")
    arch = tiny_eva_arch()
    arch["vision_cfg"].update(timm_model_name="vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="vit_tiny_patch16_224, which has no dense readouts"):
        build_image_tower(arch)


@pytest.mark.parametrize(
    "change",
    [
        dict(qkv_fused=True),
        dict(num_reg_tokens=2),
        dict(use_abs_pos_emb=False),
        dict(rope_type="dinov3", rope_rotate_half=True),
    ],
)
def test_an_eva_of_other_parts_is_read_as_timm_runs_it(change):
    tower = build_image_tower(tiny_eva_arch(**change)).eval()
    images = torch.randn(1, 3, *tower.image_size)
    with torch.no_grad():
        wanted = tower.visual(images)
        torch.testing.assert_close(tower.encode_image(images), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("pool", "head"), [("avg", None), ("token", "linear"), ("token", "mlp")])
def test_an_eva_with_another_pool_or_head_is_read_as_open_clip_runs_it(pool, head):
    arch = tiny_eva_arch()
    arch["vision_cfg"].update(timm_pool=pool, timm_proj=head)
    tower = build_image_tower(arch).eval()
    images = torch.randn(1, 3, *tower.image_size)
    with torch.no_grad():
        wanted = tower.visual(images)
        torch.testing.assert_close(tower.encode_image(images), wanted, rtol=0, atol=1e-5)
