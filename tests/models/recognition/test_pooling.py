"""Pooling of DCLIP's logits: golden values, a naive loop, and what it must not depend on."""

from __future__ import annotations

import math

import pytest
import torch

from mmclipdis.models.recognition.pooling import POOLINGS, spatial_logits

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
