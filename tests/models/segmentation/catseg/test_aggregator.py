"""CAT-Seg's aggregator: golden values, equality with the plain form, symmetries."""

from __future__ import annotations

import importlib

import pytest
import torch

from mmclipdis.models.segmentation.catseg.aggregator import (
    DROPPED_LOGIT,
    CATSegAggregator,
)
from mmclipdis.models.segmentation.catseg.checkpoint import official_name
from mmclipdis.models.segmentation.catseg.common import channels_last
from mmclipdis.models.segmentation.catseg.spatial_layers import window_groups
from tests.models.segmentation.catseg.reference import fill_value, plain_forward, z
from tests.paths import ROOT

BENCHMARKS = ROOT / "tools" / "benchmarks"
OFFICIAL = "sem_seg_head.predictor.transformer."


@pytest.fixture(scope="module")
def golden_model():
    model = CATSegAggregator(recompute="none").double()
    with torch.no_grad():
        for name, value in model.named_parameters():
            key = official_name(f"decode_head.aggregator.{name}").removeprefix(OFFICIAL)
            value.copy_(fill_value(key, tuple(value.shape)))
    return model


@pytest.fixture(scope="module")
def golden_inputs():
    shapes = {
        "img_feats": (2, 512, 24, 24),
        "res4": (2, 256, 48, 48),
        "res5": (2, 128, 96, 96),
    }
    return [z(name, shape) for name, shape in shapes.items()]


def run_golden(model, inputs, classes, pool, pad_len):
    text = z("text_feats", (classes, 1, 512))[:, 0]
    model.eval()
    model.test_pool = pool
    model.max_classes = pad_len or None
    for layer in model.layers:
        layer.classes.pad_len = pad_len
    with torch.no_grad():
        return model(inputs[0], text, inputs[1:])


GOLDEN = {
    "A1": (5, 2, 256, 0.429892, 0.427963, (-0.488985, -0.082620, 0.349966, 0.429789)),
    "A2": (5, 1, 256, 0.429907, 0.427943, (-0.495591, -0.094805, 0.348537, 0.417061)),
    "A3": (5, 1, 0, 0.416711, 0.423578, (-0.514461, -0.520640, 0.347065, 0.275588)),
    "A4": (12, 1, 8, 0.277920, 0.398072, (-0.514680, -0.522025, 0.348756, 0.0)),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_logits(case, golden_model, golden_inputs):
    classes, pool, pad_len, mean, std, probes = GOLDEN[case]
    logits = run_golden(golden_model, golden_inputs, classes, pool, pad_len)
    assert logits.shape == (2, classes, 96, 96)
    dropped = logits == DROPPED_LOGIT
    if case == "A4":
        kept = [(~dropped[i].all(-1).all(-1)).nonzero().flatten().tolist() for i in range(2)]
        assert kept == [[0, 1, 2, 3, 6, 7, 8, 9], [0, 2, 3, 4, 5, 6, 8, 9]]
    logits = logits.masked_fill(dropped, 0.0)
    points = [logits[i] for i in ((0, 0, 0, 0), (0, 2, 50, 7), (1, 4, 95, 95), (1, 1, 33, 60))]
    values = torch.stack([logits.mean(), logits.std(unbiased=False), *points])
    expected = torch.tensor([mean, std, *probes], dtype=torch.float64)
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=0)


def test_golden_intermediates(golden_model, golden_inputs):
    seen = {}

    def keep(name):
        return lambda _module, _args, out: seen.update({name: out.clone()})

    hooks = [
        golden_model.cost_embedding.register_forward_hook(
            lambda _m, args, out: seen.update(
                corr=args[0].view(2, 5, 24, 24, 1), conv1=channels_last(out, 2)
            )
        ),
        golden_model.appearance_projection.register_forward_hook(keep("appearance")),
        golden_model.text_projection.register_forward_hook(keep("text")),
    ]
    for i, layer in enumerate(golden_model.layers):
        hooks.append(layer.spatial.register_forward_hook(keep(f"swin{i}")))
        hooks.append(layer.classes.register_forward_hook(keep(f"class{i}")))
    run_golden(golden_model, golden_inputs, 5, 2, 256)
    for hook in hooks:
        hook.remove()

    expected = {
        "corr": (0.095231, 0.029963, None),
        "conv1": (0.003990, 0.038660, None),
        "swin0": (-2.058751, -1.871211, 0.014229),
        "class0": (-6.863683, -4.048501, 0.095890),
        "swin1": (-6.518926, -4.666956, 0.003307),
        "class1": (-13.364384, -8.185094, -0.087843),
    }
    for name, (first, last, mean) in expected.items():
        maps = seen[name]  # (B, T, h, w, C)
        assert maps[0, 0, 0, 0, 0].item() == pytest.approx(first, abs=1e-6), name
        assert maps[1, 4, 23, 23, -1].item() == pytest.approx(last, abs=1e-6), name
        if mean is not None:
            assert maps.mean().item() == pytest.approx(mean, abs=1e-6), name
    assert seen["corr"].std(unbiased=False).item() == pytest.approx(0.044913, abs=1e-6)
    assert seen["appearance"].relu().mean().item() == pytest.approx(0.387019, abs=1e-6)
    assert seen["text"].relu().mean().item() == pytest.approx(0.022120, abs=1e-6)


TWO = 2 * 2 * 8 * 8 * 32 * 4 / 1e6
"""MB of two classes of two images on the grid of 8 x 8."""


def tiny(**options):
    torch.manual_seed(0)
    settings = {
        "embed_dim": 12,
        "hidden_dim": 32,
        "num_heads": 2,
        "window_size": 4,
        "guidance_dims": (10, 6),
        "guidance_proj_dims": (8, 4),
        "decoder_dims": (32, 16),
        "pad_len": 9,
        "max_classes": None,
        "recompute": "none",
    }
    model = CATSegAggregator(**{**settings, **options}).double()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))  # no zeros, no ones
    return model


def tiny_inputs(classes=5, batch=2, grid=(8, 8)):
    torch.manual_seed(1)
    height, width = grid
    kwargs = {"dtype": torch.float64}
    return (
        torch.randn(batch, 12, height, width, **kwargs),
        torch.randn(classes, 12, **kwargs),
        [
            torch.randn(batch, 10, 2 * height, 2 * width, **kwargs),
            torch.randn(batch, 6, 4 * height, 4 * width, **kwargs),
        ],
    )


def value_and_grads(model, forward, inputs):
    image, text, guidance = inputs
    leaves = [t.clone().requires_grad_() for t in (image, text, *guidance)]
    logits = forward(leaves[0], leaves[1], leaves[2:])
    torch.manual_seed(2)
    (logits * torch.randn_like(logits)).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    grads.update({f"input{i}": t.grad for i, t in enumerate(leaves)})
    model.zero_grad(set_to_none=True)
    return logits.detach(), grads


def assert_same(model, forward, other, inputs):
    logits, grads = value_and_grads(model, forward, inputs)
    other_logits, other_grads = value_and_grads(model, other, inputs)
    torch.testing.assert_close(logits, other_logits, atol=1e-10, rtol=1e-10)
    scale = max(g.norm() for g in other_grads.values() if g is not None)
    for name, grad in other_grads.items():
        if grad is None:
            assert grads[name] is None or not grads[name].any(), name
            continue
        if "blocks" in name and name.endswith("attn.k.bias"):
            # A key bias adds the same number to a row of logits: its gradient is rounding only.
            assert grads[name].norm() < 1e-9 * scale
            assert grad.norm() < 1e-9 * scale
            continue
        error = (grads[name] - grad).norm() / (grad.norm() + 1e-12 * scale)
        assert error < 1e-8, f"{name}: relative gradient error {error}"


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("recompute", ["none", "cheap", "full"])
@pytest.mark.parametrize("options", [{}, {"max_classes": 3}, {"pad_len": 0}, {"chunk_mb": TWO}])
def test_equals_plain_form_in_values_and_gradients(train, recompute, options):
    model = tiny(recompute=recompute, **options).train(train)
    assert_same(
        model,
        model,
        lambda *args: plain_forward(model, *args),
        tiny_inputs(grid=(8, 8)),
    )


@pytest.mark.parametrize(("window", "grid"), [(4, (12, 16)), (3, (9, 6))])
def test_equals_plain_form_on_a_grid_with_inner_windows(window, grid):
    model = tiny(window_size=window)
    assert_same(
        model,
        model,
        lambda *args: plain_forward(model, *args),
        tiny_inputs(grid=grid),
    )


@pytest.mark.parametrize("grid", [(7, 10), (4, 9), (3, 3)])
def test_any_grid_is_partitioned_once_and_runs(grid):
    for shifted in (False, True):
        tokens = torch.cat([g.flatten() for g in window_groups(grid, 4, shifted)])
        assert tokens.sort().values.tolist() == list(range(grid[0] * grid[1]))
    logits = tiny()(*tiny_inputs(grid=grid))
    assert logits.shape == (2, 5, 4 * grid[0], 4 * grid[1])
    assert logits.isfinite().all()


def test_tokens_of_different_windows_do_not_see_each_other():
    model = tiny(num_layers=1)
    layer = model.layers[0].spatial
    maps = torch.randn(1, 2, 7, 7, 32, dtype=torch.float64)
    guidance = torch.randn(1, 7, 7, 32, dtype=torch.float64)
    block = layer.blocks[1]
    term = layer.guidance_terms(guidance)[1]
    before = block(maps, term, 4, True, False)
    changed = maps.clone()
    changed[:, :, :2, :2] += 1  # the first shifted window: half a window in each direction
    after = block(changed, term, 4, True, False)
    same = (before == after).all(dim=-1)[0, 0]
    assert not same[:2, :2].any()
    assert same[2:].all()
    assert same[:, 2:].all()


@pytest.mark.parametrize("options", [{}, {"max_classes": 3}])
def test_permuting_the_classes_permutes_the_logits(options):
    model = tiny(**options).eval()
    image, text, guidance = tiny_inputs()
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        expected = model(image, text, guidance)[:, order]
        torch.testing.assert_close(
            model(image, text[order], guidance), expected, atol=1e-12, rtol=0
        )


def test_an_image_alone_gives_what_it_gives_in_a_batch():
    model = tiny(max_classes=3).eval()
    image, text, guidance = tiny_inputs(batch=3)
    with torch.no_grad():
        together = model(image, text, guidance)
        for i in range(3):
            one = model(image[i : i + 1], text, [g[i : i + 1] for g in guidance])
            torch.testing.assert_close(one[0], together[i], atol=1e-12, rtol=0)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("options", [{}, {"max_classes": 4}])
@pytest.mark.parametrize("chunk_mb", [1e-9, TWO, 1.5 * TWO, None])
def test_class_chunks_change_nothing(chunk_mb, options, train):
    model = tiny(chunk_mb=float("inf"), **options).train(train)
    inputs = tiny_inputs()
    expected = model(*inputs).detach()  # with gradient: all images and classes together
    model.chunk_mb = chunk_mb
    with torch.no_grad():
        torch.testing.assert_close(model(*inputs), expected, atol=1e-12, rtol=0)


def test_a_chunk_holds_what_its_budget_allows():
    model = tiny(chunk_mb=TWO).eval()
    sizes = []
    model.decoder.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[0]))
    with torch.no_grad():
        model(*tiny_inputs(classes=5, batch=2))
        assert sizes == [4, 4, 2]  # images x classes
        sizes.clear()
        model(*tiny_inputs(classes=5, batch=1))
        assert sizes == [4, 1]
        sizes.clear()
        model(*tiny_inputs(classes=2, batch=9))
        assert sizes == [9, 9]  # one class at least
    published = CATSegAggregator()
    assert published._classes_at_once(torch.empty(1, 171, 24, 24)) == 16
    assert published._classes_at_once(torch.empty(5, 171, 24, 24)) == 3
    assert published._classes_at_once(torch.empty(5, 171, 24, 24, device="meta")) == 16
    assert published._classes_at_once(torch.empty(5, 2, 24, 24)) == 2


def test_chunks_bound_the_memory_of_testing(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    peak_mb = importlib.import_module("bench").peak_mb
    model = tiny(chunk_mb=TWO / 2).float().eval()
    image, text, guidance = tiny_inputs(classes=12, batch=2)
    inputs = (image.float(), text.float(), [g.float() for g in guidance])
    with torch.no_grad():
        in_chunks = peak_mb(lambda: model(*inputs))
        model.chunk_mb = float("inf")
        at_once = peak_mb(lambda: model(*inputs))
    assert in_chunks < at_once / 3  # class maps once, and what a chunk needs
    assert in_chunks > 12 * TWO / 2


def test_classes_beyond_the_most_are_announced_once(monkeypatch):
    lines = []
    place = "mmclipdis.models.segmentation.catseg.aggregator.print_log"
    monkeypatch.setattr(place, lambda text, **_: lines.append(text))
    model = tiny(max_classes=3).eval()
    with torch.no_grad():
        model(*tiny_inputs(classes=3))
        assert lines == []
        for classes in (5, 5, 4):
            model(*tiny_inputs(classes=classes))
    assert [line[:33] for line in lines] == [
        f"CATSeg: {classes} classes, but max_classe" for classes in (5, 4)
    ]
    assert "only the 3 classes with the highest cosine compete" in lines[0]


def test_testing_under_inference_mode_does_not_disturb_training():
    inputs = tiny_inputs(grid=(5, 9))  # a grid that no other test has made windows for
    with torch.inference_mode():
        expected = tiny()(*inputs)
    logits = tiny()(*inputs)
    logits.sum().backward()
    torch.testing.assert_close(logits.detach(), expected.clone(), atol=1e-12, rtol=0)


def test_padding_tokens_change_the_result_and_only_below_pad_len():
    inputs = tiny_inputs(classes=5)
    with torch.no_grad():
        models = {n: tiny(pad_len=n).eval() for n in (5, 9)}
        short, padded = (models[n](*inputs) for n in (5, 9))
        for model in models.values():
            model.layers[0].classes.padding_tokens.copy_(torch.randn(1, 1, 32))
        assert torch.equal(models[5](*inputs), short)
        assert not torch.allclose(models[9](*inputs), padded)


def test_the_parameter_counts_are_the_published_ones():
    counts = [sum(p.numel() for p in CATSegAggregator(c).parameters()) for c in (512, 768)]
    assert counts == [2_308_961, 2_636_641]


def test_autocast_trains():
    model = tiny().float()
    image, text, guidance = tiny_inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(image.float(), text.float(), [g.float() for g in guidance])
    logits.float().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "num_heads"),
        ({"window_size": 0}, "window_size"),
        ({"pad_len": -1}, "pad_len"),
        ({"max_classes": 0}, "max_classes"),
        ({"chunk_mb": 0}, "chunk_mb"),
        ({"chunk_mb": float("nan")}, "chunk_mb"),
        ({"train_pool": 0}, "Pooling"),
        ({"decoder_dims": (32,)}, "one entry for each"),
        ({"decoder_dims": (32, 50)}, "multiples of 16"),
        ({"guidance_proj_dims": (32, 4)}, "guidance"),
        ({"recompute": "some"}, "recompute"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_bad_inputs_are_named():
    model = tiny()
    image, text, guidance = tiny_inputs()
    with pytest.raises(ValueError, match="Image embeddings"):
        model(image[:, :5], text, guidance)
    with pytest.raises(ValueError, match="Class embeddings"):
        model(image, text[:0], guidance)
    with pytest.raises(ValueError, match="Guidance maps"):
        model(image, text, guidance[::-1])
    with pytest.raises(ValueError, match="pooled"):
        model(image[..., :1], text, [g[..., : 2 << i] for i, g in enumerate(guidance)])
