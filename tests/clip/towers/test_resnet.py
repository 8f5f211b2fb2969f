"""Dense features of CLIP's ResNet, against a naive pool, open_clip's own, and golden values."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.positions import POSITION_RULES, resample_positions
from mmclipdis.clip.towers.readout import READOUTS, Readout, get_readout
from mmclipdis.clip.towers.resnet import CLIPResNetTower, build_resnet_tower
from mmclipdis.clip.weights.trainable import set_trainable
from tests.clip.readouts import PLAIN_READOUTS
from tests.tiny import tiny_arch, tiny_eva_arch, tiny_resnet_arch

POOL_READOUTS = ("v", "vv", "qq", "kk", "csa", "all", "qk")
SIZES = [(64, 64), (96, 160), (224, 224), (32, 32), (70, 33)]


def randomised(tower):
    """Every weight and statistic random: as initialised, the stages are the identity."""
    generator = torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in tower.state_dict().items():
            if name.endswith("running_var"):
                tensor.add_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
            elif tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.add_(0.2 * noise)
    return tower


@pytest.fixture
def tower():
    return randomised(build_resnet_tower(tiny_resnet_arch()).double()).eval()


def photos(height=64, width=64, count=2):
    generator = torch.manual_seed(1)
    return torch.randn(count, 3, height, width, dtype=torch.float64, generator=generator)


def pool_tokens(tower, images):
    """Mean token and locations with positions, ``(B, 1 + h*w, D)``; and the grid."""
    visual, x = tower.visual, images
    for stage in (visual.stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = stage(x)
    grid = tuple(x.shape[-2:])
    table = visual.attnpool.positional_embedding
    if grid != (2, 2):
        rest = table[1:].reshape(2, 2, -1).permute(2, 0, 1)[None]
        rest = F.interpolate(rest, size=grid, mode="bicubic", align_corners=False)
        table = torch.cat([table[:1], rest[0].permute(1, 2, 0).reshape(-1, tower.width)])
    return torch.cat([x.mean(dim=(2, 3))[:, None], x.flatten(2).mT], dim=1) + table, grid


def naive_rows(tower, images, terms, scale):
    """``(B, 1 + h*w, E)``: one image, one head and one location after the other."""
    pool = tower.visual.attnpool
    tokens, grid = pool_tokens(tower, images)
    q, k, v = (getattr(pool, f"{name}_proj")(tokens) for name in "qkv")
    images_rows, size = [], tower.width // tower.heads
    for b in range(len(images)):
        heads = []
        for h in range(tower.heads):
            own = {n: p[b, :, h * size : (h + 1) * size] for n, p in zip("qkv", (q, k, v))}
            total = torch.zeros_like(own["v"])
            for term in terms:
                if term == "identity":
                    total += own["v"]
                    continue
                if term == "qkv":
                    similarity = sum(own[n] @ own[n].T for n in "qkv") / 3
                else:
                    similarity = own[term[0]] @ own[term[1]].T
                weights = (scale * similarity).softmax(dim=1)
                for row in range(len(total)):
                    total[row] += sum(weights[row, j] * own["v"][j] for j in range(len(total)))
            heads.append(total)
        images_rows.append(torch.cat(heads, dim=1) @ pool.c_proj.weight.T + pool.c_proj.bias)
    return torch.stack(images_rows), grid


def rows_of(features):
    return torch.cat([features.mean_token[:, None], features.map.flatten(2).mT], dim=1)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
@pytest.mark.parametrize("name", POOL_READOUTS)
def test_readouts_equal_a_naive_pool(tower, name, size):
    images, readout = photos(*size), READOUTS[name]
    features = tower.forward_dense(images, readout, mean_token=True)
    expected, grid = naive_rows(tower, images, readout.attention, 64**-0.5)
    assert features.map.shape == (2, 32, *grid)
    torch.testing.assert_close(rows_of(features), expected, rtol=0, atol=1e-10)


def test_unscaled_logits_differ_and_equal_a_naive_pool(tower):
    images, unscaled = photos(64, 96), Readout(("vv",), scale="none")
    features = tower.forward_dense(images, unscaled, mean_token=True)
    expected, _ = naive_rows(tower, images, ("vv",), 1.0)
    torch.testing.assert_close(rows_of(features), expected, rtol=0, atol=1e-10)
    assert not torch.allclose(features.map, tower.forward_dense(images, READOUTS["vv"]).map)


def test_readouts_differ_from_each_other(tower):
    maps = [tower.forward_dense(photos(), READOUTS[name]).map for name in POOL_READOUTS]
    for i, one in enumerate(maps):
        assert all((one - other).abs().max() > 1e-3 for other in maps[:i])


def test_value_readout_is_two_1x1_convolutions(tower):
    images, pool = photos(96, 160), tower.visual.attnpool
    tokens, grid = pool_tokens(tower, images)
    locations = tokens[:, 1:].mT.reshape(2, tower.width, *grid)
    values = F.conv2d(locations, pool.v_proj.weight[..., None, None], pool.v_proj.bias)
    expected = F.conv2d(values, pool.c_proj.weight[..., None, None], pool.c_proj.bias)
    dense = tower.forward_dense(images, READOUTS["v"]).map
    torch.testing.assert_close(dense, expected, rtol=0, atol=1e-11)


def test_value_readout_computes_neither_queries_nor_keys(tower):
    ran = []
    for part in "qkv":
        layer = getattr(tower.visual.attnpool, f"{part}_proj")
        layer.register_forward_hook(lambda *args, part=part: ran.append((part, args[2].shape[1])))
    tower.forward_dense(photos(), READOUTS["v"], mean_token=True)
    assert ran == [("v", 5)]
    ran.clear()
    tower.forward_dense(photos(), READOUTS["v"], with_cls=True)
    assert sorted(ran) == [("k", 5), ("q", 1), ("v", 5)]  # a single query for the embedding
    ran.clear()
    tower.forward_dense(photos(), READOUTS["qq"])
    assert sorted(ran) == [("q", 5), ("v", 5)]


@pytest.mark.parametrize("grid", [(2, 2), (3, 5), (1, 1)])
def test_pooled_regions_are_clips_embedding_at_a_fraction_of_its_price(tower, grid):
    generator = torch.manual_seed(2)
    maps = torch.randn(3, tower.width, *grid, dtype=torch.float64, generator=generator)
    tokens = tower._pool_tokens(maps)
    expected = tower._image_embedding(tokens, tower._project(tokens, "kv"))
    if grid == (2, 2):
        torch.testing.assert_close(tower.visual.attnpool(maps), expected, rtol=0, atol=1e-10)
    read: list[int] = []
    for part in "qkv":
        layer = getattr(tower.visual.attnpool, f"{part}_proj")
        layer.register_forward_hook(lambda *args: read.append(args[2].shape[:-1].numel()))
    torch.testing.assert_close(tower.pool_regions(maps), expected, rtol=0, atol=1e-10)
    assert read == [3]  # the queries of three regions, and no location
    assert tower.pool_regions(maps[:0]).shape == (0, 32)


@pytest.mark.parametrize("size", SIZES)
def test_zero_queries_make_the_embedding_the_mean_of_the_dense_tokens(tower, size):
    nn.init.zeros_(tower.visual.attnpool.q_proj.weight)
    nn.init.zeros_(tower.visual.attnpool.q_proj.bias)
    features = tower.forward_dense(photos(*size), READOUTS["v"], with_cls=True, mean_token=True)
    torch.testing.assert_close(rows_of(features).mean(dim=1), features.cls, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["vv", "qq", "kk", "all", "qk"])
def test_attention_over_identical_tokens_changes_nothing(tower, name):
    class Constant(nn.Module):
        def forward(self, x):
            location = torch.linspace(-1, 1, 256, dtype=x.dtype)
            return location[None, :, None, None].expand(1, -1, 3, 5)

    tower.visual.layer4 = Constant()
    nn.init.zeros_(tower.visual.attnpool.positional_embedding)
    images = photos(96, 160, count=1)
    got = tower.forward_dense(images, READOUTS[name], mean_token=True)
    expected = tower.forward_dense(images, READOUTS["v"], mean_token=True)
    torch.testing.assert_close(rows_of(got), rows_of(expected), rtol=0, atol=1e-11)
    torch.testing.assert_close(
        got.mean_token[..., None, None].expand_as(got.map), got.map, rtol=0, atol=1e-11
    )


def test_image_embedding_equals_that_of_open_clip(tower):
    model = open_clip.CLIP(**tiny_resnet_arch()).double().eval()
    model.visual.load_state_dict(tower.visual.state_dict())
    expected = model.encode_image(photos())
    features = tower.forward_dense(photos(), READOUTS["vv"], with_cls=True)
    for got in (tower.encode_image(photos()), features.cls):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    plain = tower.forward_dense(photos(), READOUTS["qk"], mean_token=True, with_cls=True)
    torch.testing.assert_close(plain.mean_token, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(plain.cls, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_image_embedding_is_row_0_of_ordinary_attention_at_any_size(tower, size):
    images = photos(*size, count=1)
    expected = naive_rows(tower, images, ("qk",), 64**-0.5)[0][:, 0]
    torch.testing.assert_close(tower.encode_image(images), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", sorted(POSITION_RULES))
def test_positions_follow_the_rule_and_the_native_grid_keeps_them(rule):
    tower = randomised(build_resnet_tower(tiny_resnet_arch(image_size=224), rule)).double().eval()
    last = torch.zeros(1, 256, 7, 7, dtype=torch.float64)
    table = tower.visual.attnpool.positional_embedding
    assert torch.equal(tower._pool_tokens(last)[0], table)
    last = torch.zeros(1, 256, 14, 9, dtype=torch.float64)
    expected = resample_positions(table, (7, 7), (14, 9), rule)
    assert torch.equal(tower._pool_tokens(last)[0], expected)
    assert torch.equal(expected[0], table[0])


def test_default_rule_is_that_of_the_reference(tower):
    assert tower.positions == CLIPResNetTower(tower.visual).positions == "size"


@pytest.mark.parametrize("name", ["v", "csa"])
def test_a_batch_equals_its_images_one_by_one(tower, name):
    images = photos(96, 64, count=3)
    asked = dict(intermediates=(0, 2), with_cls=True, mean_token=True)
    batch = tower.forward_dense(images, READOUTS[name], **asked)
    for i in range(3):
        one = tower.forward_dense(images[i : i + 1], READOUTS[name], **asked)
        for got, all_of_them in (
            *((one.map, batch.map), (one.cls, batch.cls), (one.mean_token, batch.mean_token)),
            *zip(one.intermediates, batch.intermediates, strict=True),
        ):
            torch.testing.assert_close(got[0], all_of_them[i], rtol=0, atol=1e-12)


def test_only_what_is_asked_for_is_returned(tower):
    features = tower.forward_dense(photos(), READOUTS["v"])
    assert features.cls is None and features.mean_token is None
    assert features.intermediates == () and features.context == {}


def test_stages_equal_those_of_open_clip_and_later_ones_are_not_run(tower):
    images = photos(96, 160)
    reference = tower.visual.forward_intermediates(
        images, indices=[1, 2, 3, 4], intermediates_only=True
    )["image_intermediates"]
    for got, expected in zip(tower.forward_stages(images, (0, 1, 2, -1)), reference, strict=True):
        assert torch.equal(got, expected)
    assert [m.shape[1] for m in reference] == list(tower.stage_widths) == [32, 64, 128, 256]
    assert [96 // m.shape[2] for m in reference] == [4, 8, 16, 32]
    ran = []
    for index, stage in enumerate(tower.stages):
        stage.register_forward_hook(lambda *_, index=index: ran.append(index))
    deep, shallow = tower.forward_stages(images, (1, 0))
    assert ran == [0, 1] and deep.shape[1] == 64 and shallow.shape[1] == 32


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (16, 16)])
def test_a_small_image_is_a_clear_error(tower, size):
    message = f"{size[0]} x {size[1]} px is smaller than 32 x 32 px"
    for read in (tower.encode_image, lambda x: tower.forward_dense(x, READOUTS["v"])):
        with pytest.raises(ValueError, match=message):
            read(photos(*size))


OTHER_PATHS = ("gem", "residual", "scclip")


@pytest.mark.parametrize(
    "name",
    [*OTHER_PATHS, *sorted(set(PLAIN_READOUTS) - {*POOL_READOUTS, "clearclip", "declip"})],
)
def test_readouts_of_transformer_blocks_are_refused(tower, name):
    with pytest.raises(ValueError, match=f"readout '{name}' needs transformer blocks.*choose 'v'"):
        tower.forward_dense(photos(), READOUTS[name])


@pytest.mark.parametrize("name", sorted(set(READOUTS) - {*PLAIN_READOUTS, *OTHER_PATHS}))
def test_what_no_pool_has_been_read_with_is_refused(tower, name):
    with pytest.raises(ValueError, match=f"'{name}'.* has (neighbours|layers|affinity), .* a ViT"):
        tower.forward_dense(photos(), READOUTS[name])


@pytest.mark.parametrize("fields", [dict(residual="token"), dict(residual="cls"), dict(ffn=True)])
def test_each_branch_that_a_pool_lacks_is_refused(tower, fields):
    with pytest.raises(ValueError, match="no residual, no feed-forward branch"):
        tower.forward_dense(photos(), get_readout(dict(attention=("vv",), **fields)))


def test_wrong_stages_and_rules_are_clear_errors(tower):
    with pytest.raises(ValueError, match="stage 4 does not exist: .* stages 0 to 3"):
        tower.forward_stages(photos(), (0, 4))
    with pytest.raises(ValueError, match="unknown position rule 'bicubic'"):
        build_resnet_tower(tiny_resnet_arch(), "bicubic")


@pytest.mark.parametrize("arch", ["ViT-B-32-quickgelu", tiny_arch(), tiny_eva_arch()])
def test_a_vit_is_refused_and_named(arch):
    with pytest.raises(ValueError, match="has no ResNet of CLIP; use the backbone CLIPViT"):
        build_resnet_tower(arch)


def test_a_resnet_among_the_vits_is_refused_and_named():
    with pytest.raises(ValueError, match="a ResNet of CLIP: use the backbone CLIPResNet"):
        build_image_tower(tiny_resnet_arch())


def statistics(tower):
    return {k: v.clone() for k, v in tower.state_dict().items() if "running" in k or "num_b" in k}


@pytest.mark.parametrize(
    ("trainable", "norm_eval", "moves"),
    [((), True, False), ((), False, False), (("all",), True, False), (("all",), False, True)],
)
def test_statistics_move_only_where_they_are_trained(trainable, norm_eval, moves):
    tower = build_resnet_tower(tiny_resnet_arch(), norm_eval=norm_eval)
    set_trainable(tower, trainable)
    nn.Sequential(tower).train()  # as a part of a model
    before, images = statistics(tower), photos(count=4).float()
    first = tower.encode_image(images)
    after = statistics(tower)
    assert any(not torch.equal(before[k], after[k]) for k in before) == moves
    assert torch.allclose(first[:2], tower.encode_image(images[:2]), atol=1e-6) == (not moves)
    nn.Sequential(tower).eval()
    assert not any(module.training for module in tower.modules())


def test_a_new_tower_has_no_batch_norm_in_train_mode():
    norms = [m for m in build_resnet_tower(tiny_resnet_arch()).modules() if "Norm" in repr(type(m))]
    assert norms and not any(module.training for module in norms)


@pytest.mark.parametrize(
    ("arch", "embed_dim", "blocks"), [("RN50-quickgelu", 1024, 16), ("RN101-quickgelu", 512, 33)]
)
def test_published_sizes(arch, embed_dim, blocks):
    with torch.device("meta"):
        tower = build_resnet_tower(arch)
    assert (tower.embed_dim, tower.width, tower.heads) == (embed_dim, 2048, 32)
    assert tower.stage_widths == (256, 512, 1024, 2048)
    assert (tower.image_size, tower.patch_size) == ((224, 224), (32, 32))
    assert sum(len(stage) for stage in tower.stages) == blocks
    with torch.device("meta"):
        features = tower.forward_dense(torch.randn(2, 3, 448, 448), READOUTS["v"], mean_token=True)
    assert features.map.shape == (2, embed_dim, 14, 14)
    assert features.mean_token.shape == (2, embed_dim)
