"""Pooling of DCLIP's logits: golden values, naive loops, and what it must not depend on.

Under a second.
"""

from __future__ import annotations

import math

import pytest
import torch

from mmclipdis.models.recognition.pooling import POOLINGS, pooled_logits, spatial_logits

BOTH = pytest.mark.parametrize("pooling", POOLINGS)


def naive(image, text, temperature, scale, pooling):
    """Loops over images, classes, sides and places."""
    images, places, _ = image.shape
    half = len(text) // 2
    out = torch.zeros(images, 2, half, dtype=torch.float64)
    for b in range(images):
        for n in range(half):
            scores = [
                [
                    temperature
                    * float(torch.cosine_similarity(image[b, l], text[side * half + n], dim=0))
                    for l in range(places)  # noqa: E741
                ]
                for side in (0, 1)
            ]
            for side in (0, 1):
                deciding = scores[side if pooling == "separate" else 1]
                weights = [math.exp(s - max(deciding)) for s in deciding]
                pooled = sum(w * s for w, s in zip(weights, scores[side])) / sum(weights)
                out[b, side, n] = scale * pooled
    return out


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("separate", (99.6403, 59.9996)), ("positive", (80.0001, 59.9996))],
)
def test_golden_values(pooling, expected):
    """DCLIP spec, section 10: two places, one class."""
    image = torch.tensor([[[0.6, 0.8], [0.0, 1.0]]], dtype=torch.float64)
    text = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    logits = spatial_logits(image, text, pooling=pooling)
    assert logits.shape == (1, 2, 1)
    torch.testing.assert_close(
        logits.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=6e-5
    )


@BOTH
def test_equals_the_naive_loop(pooling):
    torch.manual_seed(0)
    image, text = torch.randn(2, 5, 7).double(), torch.randn(6, 7).double()
    found = spatial_logits(image, text, 3.0, 2.0, pooling)
    torch.testing.assert_close(found, naive(image, text, 3.0, 2.0, pooling))


@BOTH
def test_a_constant_map_has_clips_own_logits(pooling):
    torch.manual_seed(1)
    token, text = torch.randn(1, 1, 8), torch.randn(4, 8)
    cosines = torch.cosine_similarity(token[0], text)
    found = spatial_logits(token.expand(1, 9, 8), text, pooling=pooling)
    torch.testing.assert_close(found.flatten(), 100 * cosines)


@BOTH
def test_only_directions_count_and_places_have_no_order(pooling):
    torch.manual_seed(2)
    image, text = torch.randn(2, 6, 5), torch.randn(8, 5)
    expected = spatial_logits(image, text, pooling=pooling)
    longer = image * torch.rand(2, 6, 1).add(0.1), text * torch.rand(8, 1).add(0.1)
    torch.testing.assert_close(spatial_logits(*longer, pooling=pooling), expected)
    shuffled = spatial_logits(image[:, torch.randperm(6)], text, pooling=pooling)
    torch.testing.assert_close(shuffled, expected)
    order = torch.tensor([2, 0, 3, 1])
    turned = spatial_logits(image, torch.cat([text[:4][order], text[4:][order]]), pooling=pooling)
    torch.testing.assert_close(turned, expected[..., order])


@BOTH
def test_the_best_place_of_a_sharp_softmax_wins(pooling):
    image = torch.nn.functional.normalize(torch.randn(1, 6, 4).double(), dim=2)
    text = torch.nn.functional.normalize(torch.randn(2, 4).double(), dim=1)
    cosines = image[0] @ text.T  # (6, 2)
    found = spatial_logits(image, text, temperature=1e5, scale=1e-5, pooling=pooling)[0, :, 0]
    place = cosines[:, 1].argmax()
    negative = cosines[:, 0].max() if pooling == "separate" else cosines[place, 0]
    torch.testing.assert_close(found, torch.stack([negative, cosines[place, 1]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    torch.manual_seed(3)
    image, text = torch.randn(2, 6, 5), torch.randn(8, 5)
    with torch.autocast("cpu", dtype=dtype):
        found = spatial_logits(image, text)
    assert torch.equal(found, spatial_logits(image, text))
    half = spatial_logits(image.to(dtype), text)
    assert half.dtype == torch.float32


def test_what_does_not_fit_is_refused():
    image, text = torch.randn(1, 4, 6), torch.randn(4, 6)
    with pytest.raises(ValueError, match="pooling must be one of separate, positive, got 'mean'"):
        spatial_logits(image, text, pooling="mean")
    for wrong in (text[:3], torch.randn(4, 5), image):
        with pytest.raises(ValueError, match=r"expected tokens \(B, L, d\) and texts \(2N, d\)"):
            spatial_logits(image, wrong)


def naive_pooled(image, clip_text, text, project, temperature, scale, pooling):
    """Loops over images, classes and sides; tokens of unit length are averaged, then projected."""
    half = len(text) // 2
    out = torch.zeros(len(image), 2, half, dtype=torch.float64)
    for b, tokens in enumerate(image):
        for n in range(half):
            for side in (0, 1):
                row = clip_text[(side if pooling == "separate" else 1) * half + n]
                exact = [math.exp(temperature * float(cosine(token, row))) for token in tokens]
                units = [token / token.norm() for token in tokens]
                mean = sum(w * unit for w, unit in zip(exact, units)) / sum(exact)
                found = cosine(project(mean), text[side * half + n])
                out[b, side, n] = scale * temperature * found
    return out


def cosine(a, b):
    return a @ b / (a.norm() * b.norm())


def projection(width=7, out=3):
    """Tokens (2, 5, 7), CLIP's texts (6, 7), projected ones (6, 3) and the projector, float64."""
    torch.manual_seed(4)
    sizes = ((2, 5, width), (6, width), (6, out), (out, width))
    image, clip_text, text, matrix = (torch.randn(*size).double() for size in sizes)
    return image, clip_text, text, lambda x: x @ matrix.T


@BOTH
def test_pooling_before_projecting_equals_the_naive_loop(pooling):
    parts = projection()
    found = pooled_logits(*parts, 3.0, 2.0, pooling)
    torch.testing.assert_close(found, naive_pooled(*parts, 3.0, 2.0, pooling))
    image, _, text, project = parts
    assert not torch.allclose(found, spatial_logits(project(image), text, 3.0, 2.0, pooling))


@BOTH
def test_both_orders_are_the_same_on_a_constant_map(pooling):
    image, clip_text, text, project = projection()
    constant = image[:, :1].expand(2, 5, 7)
    found = pooled_logits(constant, clip_text, text, project, pooling=pooling)
    torch.testing.assert_close(found, spatial_logits(project(constant), text, pooling=pooling))


def test_gradients_of_pooling_first_reach_projector_and_texts_alone():
    image, clip_text, text, _ = projection()
    matrix = torch.randn(3, 7).double().requires_grad_()
    text.requires_grad_()

    def logits(weight, rows):
        return pooled_logits(image, clip_text, rows, lambda x: x @ weight.T, 3.0, 2.0)

    assert torch.autograd.gradcheck(logits, (matrix, text))


def test_pooling_first_wants_a_projected_text_for_each_of_clips():
    image, clip_text, text, project = projection()
    with pytest.raises(ValueError, match=r"expected projected texts \(6, d'\), one for each"):
        pooled_logits(image, clip_text, text[:4], project)
    with pytest.raises(ValueError, match=r"expected tokens \(B, L, d\) and texts \(2N, d\)"):
        pooled_logits(image, clip_text[:, :3], text, project)
    with pytest.raises(ValueError, match="pooling must be one of separate, positive, got 'mean'"):
        pooled_logits(image, clip_text, text, project, pooling="mean")
