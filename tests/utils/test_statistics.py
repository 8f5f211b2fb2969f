"""Pixels with the mean and deviation of one model become those of another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmclipdis.utils.statistics import CLIP, HALF, IMAGENET, NONE, Statistics, convert


def test_what_is_zero_for_imagenet_is_the_mean_of_its_pixels_for_others() -> None:
    """The golden values of the spec of encoders, 2.7: of a red pixel."""
    zero = torch.zeros(1, 3, 1, 1)
    assert convert(zero, IMAGENET, HALF)[0, 0].item() == pytest.approx(-0.03)
    assert convert(zero, IMAGENET, NONE)[0, 0].item() == pytest.approx(0.485)


def test_from_clip_to_imagenet_is_a_factor_and_a_shift_a_channel() -> None:
    """The numbers of the spec of training-free methods, 1.3."""
    ends = convert(torch.stack([torch.zeros(3, 1, 1), torch.ones(3, 1, 1)]), CLIP, IMAGENET)
    shift, factor = ends[0].flatten(), (ends[1] - ends[0]).flatten()
    torch.testing.assert_close(factor, torch.tensor([1.173055, 1.166529, 1.225676]))
    expected = torch.tensor([-0.015482, 0.008158, 0.009825])
    torch.testing.assert_close(shift, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wanted", [CLIP, HALF, NONE, IMAGENET])
def test_it_is_as_if_the_pixels_had_been_normalised_so(wanted: Statistics) -> None:
    pixels = torch.rand(2, 3, 4, 5, dtype=torch.float64)

    def normalised(statistics: Statistics) -> torch.Tensor:
        mean, std = (pixels.new_tensor(x)[:, None, None] for x in (statistics.mean, statistics.std))
        return (pixels - mean) / std

    torch.testing.assert_close(convert(normalised(CLIP), CLIP, wanted), normalised(wanted))


def test_nothing_is_computed_where_both_are_the_same() -> None:
    images = torch.rand(1, 3, 2, 2)
    assert (
        convert(images, IMAGENET, Statistics([0.485, 0.456, 0.406], list(IMAGENET.std))) is images
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mean=[123.675, 116.28, 103.53]), r"mean must be from 0 to 1, .* by 255"),
        (dict(std=(58.395, 57.12, 57.375)), r"std must be above 0, .* by 255"),
        (dict(std=(0.2, 0.0, 0.2)), "std must be above 0"),
        (dict(mean=0.5), "mean must be three numbers, of red, green and blue; got 0.5"),
        (dict(mean=(0.5, 0.5)), "mean must be three numbers"),
        (dict(std=(0.5, float("nan"), 0.5)), "std must be three numbers"),
        (dict(std="one"), "std must be three numbers"),
        (dict(mean=(True, False, 0.5)), "mean must be three numbers"),
    ],
)
def test_other_numbers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Statistics(**{"mean": IMAGENET.mean, "std": IMAGENET.std, **options})
