"""The running argmax equals argmax and softmax over the full tensor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmclipdis.models.segmentation.running_argmax import RunningArgmax


def run(scores: torch.Tensor, chunk: int, order: list[int] | None = None) -> RunningArgmax:
    """Feed ``scores`` in chunks, in ascending order unless ``order`` lists the chunks."""
    running = RunningArgmax(with_lse=True)
    starts = list(range(0, scores.shape[0], chunk))
    for i in order if order is not None else range(len(starts)):
        running.update(scores[starts[i] : starts[i] + chunk], starts[i])
    return running


@given(queries=st.integers(1, 12), chunk=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_chunked_equals_full(queries: int, chunk: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few distinct values: ties happen in almost every example.
    scores = torch.randint(-2, 3, (queries, 4, 5), generator=generator).double() * 7
    running = run(scores, chunk)
    assert torch.equal(running.index, scores.argmax(dim=0))
    assert torch.equal(running.score, scores.amax(dim=0))
    torch.testing.assert_close(running.logsumexp, scores.logsumexp(dim=0))
    torch.testing.assert_close(running.probability, scores.softmax(dim=0).amax(dim=0))


def test_order_of_chunks_does_not_matter() -> None:
    scores = torch.tensor([1.0, 3.0, 0.0, 3.0, 3.0]).view(5, 1, 1)
    for order in ([2, 1, 0], [1, 2, 0], [0, 2, 1]):
        assert run(scores, 2, order).index.item() == 1


def test_equal_scores_give_exact_fractions() -> None:
    """A threshold that equals the probability must see the same number as softmax."""
    running = run(torch.full((4, 1, 1), 13.7), 1)
    assert running.probability.item() == 0.25


def test_large_scores_do_not_overflow() -> None:
    scores = torch.tensor([[[9000.0]], [[-9000.0]], [[9000.0]]])
    assert run(scores, 1).probability.item() == pytest.approx(0.5)


def test_misuse_is_refused() -> None:
    with pytest.raises(RuntimeError, match="update"):
        _ = RunningArgmax().index
    running = RunningArgmax()
    running.update(torch.zeros(2, 3, 3), 0)
    with pytest.raises(RuntimeError, match="with_lse"):
        _ = running.probability
    with pytest.raises(ValueError, match="shape"):
        running.update(torch.zeros(2, 3, 4), 2)
    with pytest.raises(ValueError, match="at least one"):
        running.update(torch.zeros(0, 3, 3), 2)
