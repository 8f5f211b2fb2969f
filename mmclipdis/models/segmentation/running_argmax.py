"""Argmax and softmax over many classes, a chunk of classes at a time."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningArgmax:
    r"""Best query, its score and its softmax probability in memory of one map, not of one a query.

    Chunks of scores :math:`s_q` are folded into a running maximum :math:`m` and, if asked, into
    :math:`Z = \sum_q e^{s_q - m}`, rescaled whenever :math:`m` grows. Then
    ``softmax(s)[argmax] = 1 / Z`` and ``logsumexp(s) = m + log Z``: the numbers that softmax and
    argmax over the full ``(Q, H, W)`` tensor give, ties included (the lowest index wins, in
    whatever order the chunks come).

    Args:
        with_lse: also keep ``Z``, which :attr:`probability` and :attr:`logsumexp` need.
    """

    def __init__(self, with_lse: bool = False) -> None:
        self.with_lse = with_lse
        self._index: Tensor | None = None
        self._score: Tensor | None = None
        self._sum: Tensor | None = None

    def update(self, scores: Tensor, first_index: int) -> None:
        """Fold in the scores (k, ...) of queries ``first_index .. first_index + k - 1``.

        Raises:
            ValueError: no query in the chunk, or maps of another shape than before.
        """
        if scores.shape[0] == 0:
            raise ValueError("a chunk of scores must hold at least one query")
        best, index = scores.max(dim=0)
        index = index + first_index
        if self._score is None or self._index is None:
            self._score, self._index = best, index
            if self.with_lse:
                self._sum = (scores - best).exp_().sum(dim=0)
            return
        if best.shape != self._score.shape:
            raise ValueError(
                f"chunks must share one map shape, got {tuple(best.shape)} after "
                f"{tuple(self._score.shape)}"
            )
        score = torch.maximum(self._score, best)
        if self._sum is not None:
            old = self._sum * (self._score - score).exp_()
            self._sum = old + (scores - score).exp_().sum(dim=0)
        wins = (best > self._score) | ((best == self._score) & (index < self._index))
        self._index = torch.where(wins, index, self._index)
        self._score = score

    @property
    def index(self) -> Tensor:
        """Index of the best query of each pixel, int64 (...)."""
        return self._require(self._index)

    @property
    def score(self) -> Tensor:
        """Score of the best query of each pixel (...)."""
        return self._require(self._score)

    @property
    def logsumexp(self) -> Tensor:
        """``log sum_q exp(s_q)`` of each pixel (...)."""
        return self.score + self._require(self._sum, lse=True).log()

    @property
    def probability(self) -> Tensor:
        """Softmax probability, over all queries, of the best query of each pixel (...)."""
        return self.probability_of(self.score)

    def probability_of(self, score: Tensor) -> Tensor:
        """Softmax probability, over all queries seen, of a query with this ``score`` (...)."""
        return (score - self.score).exp() / self._require(self._sum, lse=True)

    def _require(self, value: Tensor | None, lse: bool = False) -> Tensor:
        """Return ``value``; say what is missing when there is none."""
        if lse and not self.with_lse:
            raise RuntimeError("probabilities need RunningArgmax(with_lse=True)")
        if value is None:
            raise RuntimeError("no scores yet: call update() first")
        return value
