"""Readouts against a naive last block written out from the formulas."""

from __future__ import annotations

import itertools

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.towers.attention import attention_output
from mmclipdis.clip.towers.block_reader import read_last_block
from mmclipdis.clip.towers.blocks import project, qkv_weights
from mmclipdis.clip.towers.build import OpenCLIPViT, build_image_tower
from mmclipdis.clip.towers.readout import READOUTS, DualPath, Readout, get_readout
from tests.clip.readouts import PLAIN_READOUTS, UNGUIDED_READOUTS, fitted
from tests.tiny import tiny_arch

TOLERANCE = dict(rtol=0, atol=1e-10)


def naive_attention(tower: OpenCLIPViT, x: Tensor, terms: tuple[str, ...], scale: float) -> Tensor:
    """Explicit softmax attention with an L x L matrix per head, and the output projection."""
    block = tower.blocks[-1]
    attn, heads = block.attn, block.attn.num_heads
    y = block.ln_1(x)
    q, k, v = (
        t.unflatten(2, (heads, -1)).transpose(1, 2)
        for t in (y @ attn.in_proj_weight.T + attn.in_proj_bias).chunk(3, dim=2)
    )
    parts = {"q": q, "k": k, "v": v}
    out = torch.zeros_like(v)
    for term in terms:
        if term == "identity":
            out = out + v
        else:
            logits = scale * parts[term[0]] @ parts[term[1]].transpose(-1, -2)
            out = out + logits.softmax(dim=-1) @ v
    return out.transpose(1, 2).flatten(2) @ attn.out_proj.weight.T + attn.out_proj.bias


def naive_block(tower: OpenCLIPViT, x: Tensor, readout: Readout) -> Tensor:
    block = tower.blocks[-1]
    head_dim = tower.width // tower.heads
    scale = head_dim**-0.5 if readout.scale == "sqrt" else 1.0
    out = naive_attention(tower, x, readout.attention, scale)
    residual = {"token": x, "cls": x[:, :1].expand_as(x), "none": torch.zeros_like(x)}
    out = out + residual[readout.residual]
    if readout.ffn:
        out = out + block.mlp(block.ln_2(out))
    return out[:, 1:]


@pytest.fixture
def tokens(tower: OpenCLIPViT) -> Tensor:
    return torch.randn(2, 17, tower.width, dtype=torch.float64, generator=torch.manual_seed(2))


@pytest.mark.parametrize(
    "attention", [("qk",), ("qq",), ("kk",), ("vv",), ("identity",), ("qq", "kk")]
)
@pytest.mark.parametrize("residual", ["token", "cls", "none"])
@pytest.mark.parametrize("ffn", [True, False])
@pytest.mark.parametrize("scale", ["sqrt", "none"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_every_combination_equals_the_formula(
    tower, tokens, attention, residual, ffn, scale, dtype, atol
):
    tower, tokens = tower.to(dtype), tokens.to(dtype)
    readout = Readout(attention, residual, ffn, scale)
    got = read_last_block(tower.blocks[-1], tokens, readout)
    torch.testing.assert_close(got, naive_block(tower, tokens, readout), rtol=0, atol=atol)


@pytest.mark.parametrize("name", [n for n in PLAIN_READOUTS if n != "clip_surgery"])
def test_presets_up_to_declip_are_plain_attention_to_the_last_bit(tower, tokens, name):
    """Factors, neighbours and other blocks cost those nothing that do not ask for them."""
    block, readout = tower.float().blocks[-1], READOUTS[name]
    x = tokens.float()
    parts = {
        part: values.view(2, 17, tower.heads, -1).transpose(1, 2)
        for part, values in project(block.attn, block.ln_1(x), "qkv").items()
    }
    total = None
    for term in readout.attention:
        if term == "identity":
            out = parts["v"][:, :, 1:]
        elif term == "qkv":
            every = torch.cat([parts["q"], parts["k"], parts["v"]], dim=-1)
            wide = F.pad(parts["v"], (0, 2 * 16))
            out = F.scaled_dot_product_attention(every[:, :, 1:], every, wide, scale=0.25 / 3)
            out = out[..., :16]
        else:
            query, key = parts[term[0]][:, :, 1:], parts[term[1]]
            out = F.scaled_dot_product_attention(query, key, parts["v"], scale=0.25)
        total = out if total is None else total + out
    out = block.attn.out_proj(total.transpose(1, 2).flatten(2))
    if readout.residual != "none":
        out = out + (x[:, 1:] if readout.residual == "token" else x[:, :1])
    if readout.ffn:
        out = out + block.mlp(block.ln_2(out))
    assert torch.equal(read_last_block(block, x, readout), out)


def test_vanilla_equals_the_ordinary_block(tower, tokens):
    got = read_last_block(tower.blocks[-1], tokens, READOUTS["vanilla"])
    torch.testing.assert_close(got, tower.blocks[-1](tokens)[:, 1:], **TOLERANCE)


def test_vanilla_equals_open_clip_tokens_and_image_embedding(tower, clip_model, images):
    features = tower.forward_dense(images, READOUTS["vanilla"], with_cls=True)
    clip_model.visual.output_tokens = True
    pooled, patches = clip_model.visual(images)
    torch.testing.assert_close(features.cls, pooled, **TOLERANCE)
    expected = (patches @ clip_model.visual.proj).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(features.map, expected, **TOLERANCE)
    torch.testing.assert_close(tower.encode_image(images), pooled, **TOLERANCE)


@pytest.mark.parametrize("name", ["maskclip", "sclip", "clearclip", "declip", "catseg", "vv"])
def test_cls_is_the_image_embedding_under_any_readout(tower, clip_model, images, name):
    features = tower.forward_dense(images, READOUTS[name], with_cls=True)
    torch.testing.assert_close(features.cls, clip_model.encode_image(images), **TOLERANCE)


def test_value_readout_ignores_queries_and_keys(tower, images):
    before = tower.forward_dense(images, READOUTS["maskclip"]).map
    with torch.no_grad():
        tower.blocks[-1].attn.in_proj_weight[: 2 * tower.width].normal_()
    torch.testing.assert_close(tower.forward_dense(images, READOUTS["maskclip"]).map, before)


@pytest.mark.parametrize(("name", "row"), [("qq", 1), ("kk", 0)])
def test_self_attention_ignores_the_other_projection(tower, images, name, row):
    before = tower.forward_dense(images, READOUTS[name]).map
    with torch.no_grad():
        tower.blocks[-1].attn.in_proj_weight.chunk(3)[row].normal_()
    torch.testing.assert_close(tower.forward_dense(images, READOUTS[name]).map, before)


def test_sclip_sums_two_softmaxes_and_does_not_average(tower, tokens):
    block = tower.blocks[-1]
    parts = project(block.attn, block.ln_1(tokens), "qkv")
    both = attention_output(block, parts, ("qq", "kk"))
    single = attention_output(block, parts, ("qq",)) + attention_output(block, parts, ("kk",))
    torch.testing.assert_close(both, single - block.attn.out_proj.bias, **TOLERANCE)
    assert (both - single / 2).abs().max() > 0.1


def test_tied_projections_make_qk_qq_and_kk_equal(tower, tokens):
    attn = tower.blocks[-1].attn
    with torch.no_grad():
        weight, bias = attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3)
        weight[1].copy_(weight[0])
        bias[1].copy_(bias[0])
    outs = [read_last_block(tower.blocks[-1], tokens, Readout((t,))) for t in ("qk", "qq", "kk")]
    torch.testing.assert_close(outs[0], outs[1], **TOLERANCE)
    torch.testing.assert_close(outs[0], outs[2], **TOLERANCE)


def test_self_attention_is_equivariant_to_token_order(tower, tokens):
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(16)])
    got = read_last_block(tower.blocks[-1], tokens[:, order], READOUTS["declip"])
    expected = read_last_block(tower.blocks[-1], tokens, READOUTS["declip"])
    torch.testing.assert_close(got, expected[:, order[1:] - 1], **TOLERANCE)


@pytest.mark.parametrize("name", UNGUIDED_READOUTS)
def test_a_batch_equals_its_images_one_by_one(tower, images, name):
    readout = fitted(name)
    batch = tower.forward_dense(images, readout).map
    single = torch.cat([tower.forward_dense(image[None], readout).map for image in images])
    torch.testing.assert_close(batch, single, **TOLERANCE)


def test_four_choices_of_residual_and_ffn_are_distinct(tower, tokens):
    outs = [
        read_last_block(tower.blocks[-1], tokens, Readout(("qq",), residual, ffn))
        for residual, ffn in itertools.product(("token", "none"), (True, False))
    ]
    for one, other in itertools.combinations(outs, 2):
        assert (one - other).abs().max() > 1e-3


def test_context_is_the_projection_after_the_bias_without_cls(tower, images):
    features = tower.forward_dense(images, READOUTS["clearclip"], context=("q", "k"))
    x = tower.visual.transformer.resblocks[1](
        tower.visual.transformer.resblocks[0](tower.embed(images))
    )
    attn = tower.blocks[-1].attn
    y = tower.blocks[-1].ln_1(x) @ attn.in_proj_weight.T + attn.in_proj_bias
    for name, part in zip("qk", y.chunk(3, dim=2), strict=False):
        expected = part[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(features.context[name], expected, **TOLERANCE)
    assert sorted(features.context) == ["k", "q"]


@pytest.mark.parametrize(
    "readout",
    [*(fitted(n) for n in UNGUIDED_READOUTS if n != "scclip"), DualPath(0)],
)
def test_the_last_block_projects_once_whatever_is_asked(tower, images, readout, monkeypatch):
    x = tower.embed(images)
    for block in tower.blocks[:-1]:
        x = block(x)
    plain = tower.forward_dense(images, readout).map
    weights, rows = qkv_weights(tower.blocks[-1].attn), {"q": 0, "k": 0, "v": 0}
    original = torch.nn.functional.linear

    def spy(values, weight, *args):
        for name, own in zip("qkv", weights, strict=True):
            if weight.data_ptr() == own.data_ptr():
                rows[name] += values.shape[1]
        return original(values, weight, *args)

    monkeypatch.setattr(torch.nn.functional, "linear", spy)
    asked = dict(intermediates=(2,), context=("q", "k", "v"), with_cls=True)
    features = tower.forward_dense(images, readout, **asked)
    monkeypatch.undo()
    assert rows == {"q": 17, "k": 17, "v": 17}
    torch.testing.assert_close(features.map, plain, **TOLERANCE)
    torch.testing.assert_close(features.cls, tower.encode_image(images), **TOLERANCE)
    ordinary = tower.blocks[-1](x)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(features.intermediates[0], ordinary, **TOLERANCE)


def test_intermediates_are_block_outputs_in_the_order_asked(tower, images):
    features = tower.forward_dense(images, READOUTS["clearclip"], intermediates=(-1, 0))
    reference = tower.visual.forward_intermediates(images, indices=[0, 2])["image_intermediates"]
    torch.testing.assert_close(features.intermediates[0], reference[1], **TOLERANCE)
    torch.testing.assert_close(features.intermediates[1], reference[0], **TOLERANCE)


@pytest.mark.parametrize("name", ["vanilla", "maskclip", "declip"])
def test_tokens_are_what_the_map_is_projected_from(tower, images, name):
    readout = READOUTS[name]
    features = tower.forward_dense(images, readout, with_tokens=True)
    x = tower.embed(images)
    for block in tower.blocks[:-1]:
        x = block(x)
    expected = naive_block(tower, x, readout).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(features.tokens, expected, **TOLERANCE)
    visual = tower.visual
    projected = visual.ln_post(features.tokens.permute(0, 2, 3, 1)) @ visual.proj
    torch.testing.assert_close(features.map, projected.permute(0, 3, 1, 2), **TOLERANCE)
    assert tower.forward_dense(images, readout).tokens is None


def test_clip_surgery_equals_the_unrolled_sum(tower, images):
    xs = [tower.embed(images)]
    for block in tower.blocks:
        xs.append(block(xs[-1]))
    path = xs[1]
    for index in (1, 2):  # the last two blocks; X_{l-1} is xs[index]
        block = tower.blocks[index]
        parts = project(block.attn, block.ln_1(xs[index]), "v")
        path = path + attention_output(block, parts, ("vv",))
    expected = tower.to_joint(path[:, 1:]).transpose(1, 2).unflatten(2, (4, 4))
    features = tower.forward_dense(images, DualPath(2), with_cls=True, intermediates=(1,))
    torch.testing.assert_close(features.map, expected, **TOLERANCE)
    torch.testing.assert_close(features.cls, tower.encode_image(images), **TOLERANCE)


def test_clip_surgery_of_no_block_is_vanilla(tower, images):
    vanilla = tower.forward_dense(images, READOUTS["vanilla"]).map
    torch.testing.assert_close(tower.forward_dense(images, DualPath(0)).map, vanilla, **TOLERANCE)


def test_surgery_over_every_block_runs_and_over_more_is_an_error(tower, images):
    assert tower.forward_dense(images, DualPath(3)).map.shape == (2, 32, 4, 4)
    with pytest.raises(ValueError, match="4 surgery blocks, but the tower has 3"):
        tower.forward_dense(images, DualPath(4))


def test_gradients_reach_only_what_the_readout_reads(tower, images):
    tower.forward_dense(images, READOUTS["clearclip"]).map.sum().backward()
    last = tower.blocks[-1]
    query, key, value = last.attn.in_proj_weight.grad.chunk(3)
    assert query.abs().max() > 0 and value.abs().max() > 0
    assert key.abs().max() == 0
    assert last.mlp.c_fc.weight.grad is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("clearclp", "unknown readout 'clearclp'; known: all, catseg, clearclip"),
        (dict(attention=("qv",)), "attention must be one or more of"),
        (dict(attention=()), "attention must be one or more of .*there must be a residual"),
        (dict(attention=("qq", "qq")), "names a term twice"),
        (dict(attention=("qq",), residual="yes"), "residual must be one of"),
        (dict(attention=("qq",), scale=2), "scale must be one of"),
        (dict(attention=("qq",), fnn=True), "unknown Readout field"),
        (dict(blocks=-1), "blocks must be >= 0"),
        (3, "a readout is a name or a dict"),
    ],
)
def test_a_wrong_readout_is_one_clear_error(value, message):
    with pytest.raises(ValueError, match=message):
        get_readout(value)


def test_a_readout_can_be_given_as_name_value_or_dict():
    assert get_readout("clearclip") is READOUTS["clearclip"]
    assert get_readout(dict(attention=["qq"])) == READOUTS["clearclip"]
    assert get_readout(dict(blocks=2)) == DualPath(2)


@pytest.mark.parametrize("option", ["qk_norm", "scale_attn", "scale_heads"])
def test_another_kind_of_attention_is_refused(option):
    with pytest.raises(ValueError, match="ViT with another kind of attention; take one like"):
        build_image_tower(tiny_arch(**{option: True}))


def test_other_towers_are_refused():
    with pytest.raises(ValueError, match="swin_base_patch4_window7_224, which has no dense"):
        build_image_tower("swin_base_patch4_window7_224")
    pooled = open_clip.transformer.VisionTransformer(
        32, 16, 32, 1, 2, 4.0, output_dim=8, pool_type="avg"
    )
    with pytest.raises(ValueError, match="a mean behind ln_post"):
        OpenCLIPViT(pooled)
