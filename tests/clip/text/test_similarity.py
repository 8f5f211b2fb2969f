"""Statistics of cosines between classes, against hand-computed values and double loops."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
import torch

from mmclipdis.clip.text.similarity import cosine_matrix, mean_off_diagonal, similarity_report


def naive_cosines(features: torch.Tensor) -> list[list[float]]:
    rows = features.tolist()

    def cosine(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    return [[cosine(a, b) for b in rows] for a in rows]


def naive_pairs(features: torch.Tensor) -> list[tuple[float, int, int]]:
    cosines = naive_cosines(features)
    count = len(cosines)
    return [(cosines[i][j], i, j) for i in range(count) for j in range(count) if i < j]


@pytest.fixture
def features() -> torch.Tensor:
    """Rows of different lengths around a common direction, as CLIP's."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(7, 5, generator=generator, dtype=torch.float64) + 0.8
    return rows * torch.tensor([1.0, 0.1, 10, 3, 1, 2, 5], dtype=torch.float64)[:, None]


def test_a_gram_matrix_of_constant_half_has_mean_half() -> None:
    gram = torch.full((4, 4), 0.5, dtype=torch.float64) + 0.5 * torch.eye(4, dtype=torch.float64)
    rows = torch.linalg.cholesky(gram)
    assert mean_off_diagonal(rows).item() == pytest.approx(0.5, abs=1e-12)
    assert mean_off_diagonal(3 * rows).item() == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 0], [0.6, 0.8]], 0.6),
        ([[1.0, 0, 0], [0, 2, 0], [0, 0, 3]], 0.0),
        ([[1.0, 0], [-1, 0]], -1.0),
        ([[1.0, 1]] * 5, 1.0),
        ([[1.0, 0], [0, 0], [1, 0]], 1 / 3),  # a row of zeros is orthogonal to all
    ],
)
def test_mean_off_diagonal_of_known_rows(rows: list[list[float]], expected: float) -> None:
    assert mean_off_diagonal(torch.tensor(rows)).item() == pytest.approx(expected, abs=1e-6)


def test_mean_off_diagonal_is_the_double_loop(features: torch.Tensor) -> None:
    pairs = naive_pairs(features)
    expected = sum(value for value, _, _ in pairs) / len(pairs)
    assert mean_off_diagonal(features).item() == pytest.approx(expected, abs=1e-12)
    assert mean_off_diagonal(features.float()).item() == pytest.approx(expected, abs=1e-6)


def test_mean_off_diagonal_has_the_gradient_of_the_matrix(features: torch.Tensor) -> None:
    ours, matrix = features.clone().requires_grad_(), features.clone().requires_grad_()
    mean_off_diagonal(ours).backward()
    unit = matrix / matrix.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    ((cosines.sum() - 7) / 42).backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, matrix.grad, rtol=0, atol=1e-12)


def test_half_precision_is_computed_in_single() -> None:
    rows = (torch.randn(300, 64, generator=torch.Generator().manual_seed(1)) + 1).half()
    mean = mean_off_diagonal(rows)
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(mean_off_diagonal(rows.double()).item(), abs=1e-6)


def test_cosine_matrix_is_symmetric_and_in_range(features: torch.Tensor) -> None:
    matrix = cosine_matrix(features)
    np.testing.assert_allclose(matrix, naive_cosines(features), rtol=0, atol=1e-12)
    assert torch.equal(matrix, matrix.T)
    assert matrix.max() <= 1


def test_the_report_has_the_numbers_of_the_double_loop(features: torch.Tensor) -> None:
    names = list("abcdefg")
    report = similarity_report(features, names, top_k=4, negatives=features.flip(1))
    pairs = naive_pairs(features)
    values = [value for value, _, _ in pairs]
    assert report["num_classes"] == 7
    assert report["mean_offdiag"] == pytest.approx(np.mean(values), abs=1e-12)
    assert report["mean_offdiag"] == pytest.approx(mean_off_diagonal(features).item(), abs=1e-12)
    assert report["std"] == pytest.approx(np.std(values), abs=1e-12)
    assert report["min"] == pytest.approx(min(values), abs=1e-12)
    assert report["max"] == pytest.approx(max(values), abs=1e-12)
    assert list(report["percentiles"]) == ["5", "25", "50", "75", "95"]
    for name, value in report["percentiles"].items():
        assert value == pytest.approx(np.percentile(values, float(name)), abs=1e-12)
    best = sorted(pairs, reverse=True)[:4]
    assert [pair["indices"] for pair in report["top_pairs"]] == [[i, j] for _, i, j in best]
    for pair, (value, i, j) in zip(report["top_pairs"], best, strict=True):
        assert pair["names"] == [names[i], names[j]]
        assert pair["cosine"] == pytest.approx(value, abs=1e-12)
    own = [naive_cosines(torch.stack([row, row.flip(0)]))[0][1] for row in features]
    assert report["mean_pos_neg"] == pytest.approx(np.mean(own), abs=1e-12)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_values_are_raw_also_where_they_are_negative() -> None:
    """The authors' notebook rescales a matrix with negative values to [0, 1]."""
    report = similarity_report(torch.tensor([[1.0, 0], [-0.6, 0.8], [0, -1]]), ["a", "b", "c"])
    assert [pair["cosine"] for pair in report["top_pairs"]] == pytest.approx([0, -0.6, -0.8])
    assert (report["min"], report["max"]) == pytest.approx((-0.8, 0))
    assert report["mean_offdiag"] == pytest.approx(-1.4 / 3)
    assert "mean_pos_neg" not in report


def test_equal_pairs_stay_in_the_order_of_the_classes() -> None:
    report = similarity_report(torch.ones(4, 2), list("abcd"), top_k=100)
    indices = [pair["indices"] for pair in report["top_pairs"]]
    assert indices == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert report["std"] == pytest.approx(0, abs=1e-12)


def test_two_classes_and_no_pair_are_enough() -> None:
    report = similarity_report(torch.tensor([[1.0, 0], [0.6, 0.8]]), ["a", "b"], top_k=0)
    assert report["mean_offdiag"] == pytest.approx(0.6)
    assert report["std"] == 0 and report["top_pairs"] == []


def test_the_classes_of_lvis_take_seconds() -> None:
    rows = torch.randn(1203, 512, generator=torch.Generator().manual_seed(2)) + 0.5
    start = time.perf_counter()
    report = similarity_report(rows, [str(i) for i in range(1203)], negatives=-rows)
    assert time.perf_counter() - start < 10
    assert report["mean_offdiag"] == pytest.approx(mean_off_diagonal(rows).item(), abs=1e-5)
    assert report["mean_pos_neg"] == pytest.approx(-1)
    assert len(report["top_pairs"]) == 20


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (torch.ones(1, 2), {}, "1 class features: at least two are needed to compare them"),
        (torch.ones(3), {}, r"features have shape \(3,\), expected \(M, D\)"),
        (torch.ones(3, 2), {}, "3 features for 2 class names"),
        (torch.tensor([[1.0, 0], [0, 0]]), {}, "the feature of class 'b' is zero or not finite"),
        (torch.tensor([[math.nan, 0], [1, 0]]), {}, "the feature of class 'a' is zero or not"),
        (torch.ones(2, 2), {"top_k": -1}, "top_k=-1: expected 0 or more pairs"),
        (torch.ones(2, 2), {"negatives": torch.ones(2, 3)}, r"negatives have shape \(2, 3\), the"),
        (torch.ones(2, 2), {"negatives": torch.zeros(2, 2)}, "the negative feature of class 'a'"),
    ],
)
def test_what_cannot_be_compared_is_named(
    rows: torch.Tensor, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        similarity_report(rows, ["a", "b"], **options)


def test_one_row_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least two are needed"):
        mean_off_diagonal(torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\)"):
        mean_off_diagonal(torch.ones(2, 3, 4))
