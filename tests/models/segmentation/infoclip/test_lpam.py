"""LPAM: golden values with both losses, a loop, parameter counts, gradients, options, bad input."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from mmclipdis.losses.alignment_transfer import compression_loss, distillation_loss
from mmclipdis.losses.renyi import (
    linear_gram,
    multivariate_information,
    mutual_information,
    normalize_gram,
    renyi_entropy,
)
from mmclipdis.models import LPAM


def z(key, shape):
    values = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    return torch.from_numpy(values)


def golden_module(**options):
    """16 channels with the weights of the golden values."""
    module = LPAM(16, **options).double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = z(name, tuple(parameter.shape))
            if parameter.ndim == 2:
                value = value / 4
            else:
                value = 1 + 0.1 * value if name.endswith("weight") else 0.05 * value
            parameter.copy_(value)
    return module


def golden_inputs():
    """Image and text features of the teacher, then of the student."""
    images, text = z("V_t", (4, 9, 16)), z("L_t", (5, 16))
    return images, text, images + 0.3 * z("dV", (4, 9, 16)), text + 0.3 * z("dL", (5, 16))


def matrix(x):
    return normalize_gram(linear_gram(x.flatten(1)))


def approx(value):
    return pytest.approx(value, abs=6e-7)


GOLDEN = {
    "cosine": {
        "relation": (-0.453193, 1.361091, -0.173185),
        "entropies": (1.970035, 1.898381, 1.936503),
        "compression": -0.101281,
        "distillation": -1.837707,
        "full": 1.868754,
    },
    "ln_dot": {
        "relation": (-3.715786, 6.463969, -0.073822),
        "entropies": (1.970035, 1.886233, 1.925176),
        "compression": -0.113042,
        "distillation": -1.813633,
        "full": 1.856993,
    },
}


@pytest.mark.parametrize("residual", GOLDEN)
def test_golden_values(residual):
    """InfoCLIP I: relations, entropies, both losses, and the information that L_c is a part of."""
    module, expected = golden_module(residual=residual), GOLDEN[residual]
    images, text, own_images, own_text = golden_inputs()
    teacher, student = module(images, text), module(own_images, own_text)
    relation = (teacher[0, 0, 0], teacher[3, 8, 4], teacher.mean())
    assert [x.item() for x in relation] == [approx(x) for x in expected["relation"]]
    v, t, s = (matrix(x) for x in (images, teacher, student))
    entropies = [renyi_entropy(x).item() for x in (v, t, s)]
    assert entropies == [approx(x) for x in expected["entropies"]]
    compression = compression_loss(images, teacher).item()
    assert compression == approx(expected["compression"])
    with_text = compression_loss(images, teacher, text=text).item()
    assert with_text == pytest.approx(compression, abs=1e-12)
    assert distillation_loss(teacher, student).item() == approx(expected["distillation"])
    shared_text = torch.full((4, 4), 0.25, dtype=torch.float64)
    full = multivariate_information([v, shared_text], t).item()
    assert full == approx(expected["full"])
    assert full == pytest.approx(compression + entropies[0], abs=1e-12)
    if residual == "ln_dot":
        assert mutual_information(t, t).item() == approx(1.779493)
        assert distillation_loss(teacher, teacher).item() == approx(-1.779493)


def test_golden_gradient_norms():
    module = golden_module()
    images, text, own_images, own_text = golden_inputs()
    teacher, student = module(images, text), module(own_images, own_text)
    expected = {"L_d": (0.930230, 0.831286), "L_c": (0.803420, 0.711011)}
    losses = {"L_d": distillation_loss(teacher, student), "L_c": compression_loss(images, teacher)}
    for name, loss in losses.items():
        weights = [module.q.weight, module.k.weight]
        norms = [g.norm().item() for g in torch.autograd.grad(loss, weights, retain_graph=True)]
        assert norms == [approx(x) for x in expected[name]], name


def test_what_each_loss_trains():
    """A teacher under no_grad gets nothing, L_c nothing but LPAM, L_d LPAM and the student."""
    module = golden_module()
    images, text, own_images, own_text = golden_inputs()
    scale = {name: torch.ones((), dtype=torch.float64, requires_grad=True) for name in ("T", "S")}
    with torch.no_grad():
        images, text = images * scale["T"], text * scale["T"]
    own_images, own_text = own_images + scale["S"], own_text * scale["S"]
    teacher, student = module(images, text), module(own_images, own_text)
    compression_loss(images, teacher).backward(retain_graph=True)
    assert scale["T"].grad is None and scale["S"].grad is None
    assert all(p.grad.any() for p in module.parameters())
    before = {name: p.grad.clone() for name, p in module.named_parameters()}
    distillation_loss(teacher, student).backward()
    assert scale["T"].grad is None and scale["S"].grad
    assert all((p.grad != before[name]).any() for name, p in module.named_parameters())


@pytest.mark.parametrize("residual", ["cosine", "ln_dot"])
def test_equals_loops_over_pixels_and_classes(residual):
    module = golden_module(residual=residual)
    images, text, _, _ = golden_inputs()
    got = module(images, text).tolist()

    def normal(x, norm):
        mean = sum(x) / 16
        deviation = math.sqrt(sum((a - mean) ** 2 for a in x) / 16 + 1e-5)
        weight, bias = norm.weight.tolist(), norm.bias.tolist()
        return [(a - mean) / deviation * w + b for a, w, b in zip(x, weight, bias, strict=True)]

    def project(x, linear):
        rows = zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
        return [dot(row, x) + bias for row, bias in rows]

    def dot(x, y):
        return sum(a * b for a, b in zip(x, y, strict=True))

    for b, p, t in ((0, 0, 0), (1, 8, 3), (3, 4, 4)):
        v, c = images[b, p].tolist(), text[t].tolist()
        v_hat, c_hat = normal(v, module.norm_v), normal(c, module.norm_l)
        fixed = dot(v_hat, c_hat)
        if residual == "cosine":
            fixed = dot(v, c) / math.hypot(*v) / math.hypot(*c)
        score = dot(project(v_hat, module.q), project(c_hat, module.k)) / 4
        assert got[b][p][t] == pytest.approx(score + fixed, abs=1e-12)


@pytest.mark.parametrize(
    ("width", "options", "count"),
    [
        (512, {}, 527_360),
        (512, {"norms": False}, 525_312),
        (512, {"norms": False, "bias": False}, 524_288),
        (512, {"residual": "ln_dot"}, 527_360),
        (512, {"relation": "cosine"}, 0),
        (768, {}, 1_184_256),
        (768, {"norms": False}, 1_181_184),
    ],
)
def test_parameter_counts(width, options, count):
    with torch.device("meta"):
        module = LPAM(width, **options)
    assert sum(p.numel() for p in module.parameters()) == count


def test_names_of_the_parameters():
    names = {f"{n}.{kind}" for n in ("q", "k", "norm_v", "norm_l") for kind in ("weight", "bias")}
    assert set(LPAM(4).state_dict()) == names
    assert set(LPAM(4, norms=False, bias=False).state_dict()) == {"q.weight", "k.weight"}


def test_without_norms_the_raw_features_are_projected():
    module = golden_module(norms=False, bias=False)
    images, text, _, _ = golden_inputs()
    scores = (images @ module.q.weight.T) @ (text @ module.k.weight.T).T / 4
    cosine = torch.nn.functional.cosine_similarity(images[:, :, None], text, dim=-1)
    torch.testing.assert_close(module(images, text), scores + cosine, atol=1e-12, rtol=0)


def test_the_cosine_relation_is_the_cosine():
    images, text, _, _ = golden_inputs()
    got = MODELS.build({"type": "LPAM", "embed_dim": 16, "relation": "cosine"})(images, text)
    cosine = torch.nn.functional.cosine_similarity(images[:, :, None], text, dim=-1)
    torch.testing.assert_close(got, cosine, atol=1e-12, rtol=0)
    torch.testing.assert_close(LPAM(16, "cosine")(7 * images, 0.1 * text), got)


def test_classes_and_pixels_keep_their_order():
    """No softmax couples them: each entry depends on its pixel and its class only."""
    module = golden_module()
    images, text, _, _ = golden_inputs()
    whole = module(images, text)
    part = module(images[1:3, [5, 2]], text[[4, 0, 3]])
    torch.testing.assert_close(part, whole[1:3, [5, 2]][..., [4, 0, 3]], atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("relation", ["lpam", "cosine"])
def test_half_types_are_computed_in_fp32_also_under_autocast(dtype, relation):
    module = LPAM(16, relation)
    images, text = (x.to(dtype) for x in golden_inputs()[:2])
    with torch.autocast("cpu", dtype):
        got = module(images, text)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, module(images.float(), text.float()), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 0}, "embed_dim must be at least 1, got 0"),
        ({"relation": "dot"}, "relation must be one of lpam, cosine, got 'dot'"),
        ({"residual": "dot"}, "residual must be one of cosine, ln_dot, got 'dot'"),
        ({"residual": "ln_dot", "norms": False}, "it needs norms=True"),
        ({"relation": "cosine", "bias": False}, "leave out residual, norms and bias"),
        ({"relation": "cosine", "residual": "ln_dot"}, "leave out residual, norms and bias"),
    ],
)
def test_bad_options_are_one_error(options, message):
    with pytest.raises(ValueError, match=message):
        LPAM(**{"embed_dim": 4, **options})


@pytest.mark.parametrize(
    "shapes", [((2, 3, 5), (6, 4)), ((2, 3, 4), (6, 5)), ((3, 4), (6, 4)), ((2, 3, 4), (2, 6, 4))]
)
def test_bad_shapes_are_one_error(shapes):
    with pytest.raises(ValueError, match=r"images \(B, P, 4\) and text \(T, 4\), got"):
        LPAM(4)(*(torch.ones(shape) for shape in shapes))
