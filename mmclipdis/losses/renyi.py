r"""Matrix-based Rényi entropy: information of samples from their Gram matrix, no density estimated.

``n`` samples of a quantity give a Gram matrix K of a positive kernel. Scaled to trace 1 it has the
eigenvalues of a probability distribution, and Rényi's formula applies to them:

.. math:: A_{ij} = \frac{K_{ij}}{n \sqrt{K_{ii} K_{jj}}}, \qquad
          S_\alpha(A) = \frac{1}{1 - \alpha} \log_2 \sum_i \lambda_i(A)^\alpha \text{ bits.}

Samples that all look alike give :math:`\lambda = (1, 0, \dots)` and 0 bits, mutually orthogonal
ones :math:`\log_2 n`. Several quantities *of the same samples* are joined by the entrywise
product: a pair of samples is alike if it is alike in each of them. Information follows as usual,

.. math:: I(A; B) = S(A) + S(B) - S(A, B), \qquad S(A | B) = S(A, B) - S(B).

::

    x, y = torch.randn(2, 8, 3)
    a, b = normalize_gram(rbf_gram(x, 1.0)), normalize_gram(rbf_gram(y, 1.0))
    mutual_information(a, b)  # bits

The theory asks for infinitely divisible kernels. The RBF kernel is one; the linear kernel is not,
and with it mutual information can be slightly negative. All functions differentiate, take leading
batch dimensions, and compute half types in fp32, also under autocast; float64 stays.

Source: Sánchez Giraldo, Rao and Príncipe, "Measures of entropy from data using infinitely divisible
kernels" (2015); Yu et al., "Multivariate extension of matrix-based Rényi's alpha-order entropy
functional" (2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_NEAR_ONE = 0.1  # distance of alpha from 1 within which the sum is written around 1


def linear_gram(x: Tensor) -> Tensor:
    """Inner products ``x_i . x_j``: ``(..., n, d)`` -> ``(..., n, n)``.

    Raises:
        ValueError: ``x`` is not ``(..., n, d)``, or empty.
    """
    x = _samples(x)
    with torch.autocast(x.device.type, enabled=False):
        return x @ x.mT


def rbf_gram(x: Tensor, sigma: float) -> Tensor:
    r""":math:`\exp(-|x_i - x_j|^2 / (2 \sigma^2))`: ``(..., n, d)`` -> ``(..., n, n)``.

    Raises:
        ValueError: ``x`` is not ``(..., n, d)``, or empty; ``sigma`` is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"sigma, the width of the kernel, must be positive, got {sigma}.")
    x = _samples(x)
    # The differences themselves: squares of lengths would cancel where samples are close.
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(distance.square() / (-2 * sigma**2))


def normalize_gram(gram: Tensor) -> Tensor:
    r"""A of trace 1: :math:`K_{ij} / (n \sqrt{K_{ii} K_{jj}})`, ``(..., n, n)``.

    Looks at the values of the diagonal, for which a GPU has to be waited for.

    Raises:
        ValueError: ``gram`` is not square, or has a diagonal entry that is not positive: the
            sample is 0 (or NaN), and resembles nothing.
    """
    gram = _checked(gram)[0]
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    bad = ~(diagonal > 0)
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"The diagonal of a Gram matrix must be positive, but sample {at[-1]} has "
            f"{diagonal[at].item():g}; leave out samples that are 0, or use rbf_gram."
        )
    scale = diagonal.rsqrt()
    return gram * scale[..., :, None] * scale[..., None, :] / gram.shape[-1]


def joint(*matrices: Tensor) -> Tensor:
    """Entrywise product of matrices ``(..., n, n)`` of the same samples, scaled to trace 1.

    Positive semidefinite if they are (Schur). With matrices of :func:`normalize_gram` the trace
    before scaling is ``n ** (1 - L)`` for L of them.

    Raises:
        ValueError: no matrix, one that is not square, or different shapes.
    """
    product, trace = _product(*matrices)
    return product / trace[..., None, None]


def renyi_entropy(matrix: Tensor, alpha: float = 2.0) -> Tensor:
    r"""Entropy of order ``alpha`` in bits, between 0 and log2 n; smaller for larger ``alpha``.

    .. math:: S_\alpha(A) = \frac{1}{1 - \alpha} \log_2 \sum_i \lambda_i^\alpha, \qquad
              \frac{\partial S_\alpha}{\partial A} =
              \frac{\alpha}{(1 - \alpha) \ln 2} \frac{A^{\alpha - 1}}{\operatorname{tr} A^\alpha}

    - ``alpha=2`` needs no eigenvalues: :math:`-\log_2 \|A\|_F^2`, exactly, in :math:`O(n^2)`.
    - ``alpha=1`` is the limit, von Neumann's :math:`-\sum \lambda \log_2 \lambda`.
    - Near 1 (by less than 0.1) the sum is written around 1, its value for a trace of 1, so that
      rounding is not divided by :math:`1 - \alpha`. The gradient then differs from the formula by a
      multiple of the identity, which is no matter to a matrix that always has trace 1.
    - Eigenvalues below the machine epsilon are rounding, and count as 0. The gradient there is
      finite for ``alpha > 1``. For ``alpha <= 1`` it is infinite, and 0 is given instead; small
      eigenvalues above still get large ones. Rank-deficient matrices (linear kernel, n > d) are
      better off with ``alpha > 1``.

    Args:
        matrix: A, ``(..., n, n)``, symmetric, positive semidefinite and of trace 1 as from
            :func:`normalize_gram` or :func:`joint` (not checked).
        alpha: Order, positive.

    Returns:
        ``(...)``, a scalar for one matrix.

    Raises:
        ValueError: not square, or ``alpha`` is not a positive number.
    """
    check_alpha(alpha)
    matrix = _checked(matrix)[0]
    if alpha == 2:
        return -_squares(matrix).log2()
    with torch.autocast(matrix.device.type, enabled=False):
        return _spectral_entropy(torch.linalg.eigvalsh(matrix), alpha)


def joint_entropy(*matrices: Tensor, alpha: float = 2.0) -> Tensor:
    """``S(A_1, ..., A_L)`` in bits: the entropy of :func:`joint`.

    Raises:
        ValueError: as :func:`joint` and :func:`renyi_entropy`.
    """
    check_alpha(alpha)
    if alpha != 2:
        return renyi_entropy(joint(*matrices), alpha)
    product, trace = _product(*matrices)  # the scale goes into the logarithm
    return -(_squares(product) / trace.square()).log2()


def mutual_information(first: Tensor, second: Tensor, alpha: float = 2.0) -> Tensor:
    """``I(A; B) = S(A) + S(B) - S(A, B)`` in bits.

    0 if B is constant (all ones / n), S(A) if B tells every sample apart (identity / n). With the
    linear kernel it may be slightly negative; take no logarithm of it.

    Raises:
        ValueError: as :func:`joint` and :func:`renyi_entropy`.
    """
    own = renyi_entropy(first, alpha) + renyi_entropy(second, alpha)
    return own - joint_entropy(first, second, alpha=alpha)


def multivariate_information(
    matrices: Sequence[Tensor], target: Tensor, alpha: float = 2.0
) -> Tensor:
    """``I(A_1, ..., A_L; B) = S(A_1, ..., A_L) + S(B) - S(A_1, ..., A_L, B)`` in bits.

    Raises:
        ValueError: as :func:`joint` and :func:`renyi_entropy`.
    """
    own = joint_entropy(*matrices, alpha=alpha)
    together = joint_entropy(*matrices, target, alpha=alpha)
    return own + renyi_entropy(target, alpha) - together


def conditional_entropy(first: Tensor, second: Tensor, alpha: float = 2.0) -> Tensor:
    """``S(A | B) = S(A, B) - S(B)`` in bits.

    Raises:
        ValueError: as :func:`joint` and :func:`renyi_entropy`.
    """
    return joint_entropy(first, second, alpha=alpha) - renyi_entropy(second, alpha)


def check_alpha(alpha: float) -> None:
    """Check the order of an entropy.

    Raises:
        ValueError: ``alpha`` is not a positive, finite number.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha, the order of the entropy, must be positive, got {alpha}.")


def _product(*matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Entrywise product and its trace."""
    product, *others = _checked(*matrices)
    for matrix in others:
        product = product * matrix
    return product, product.diagonal(dim1=-2, dim2=-1).sum(-1)


def _squares(matrix: Tensor) -> Tensor:
    """Sum of the squared entries, without a matrix of squares."""
    entries = matrix.flatten(-2)
    with torch.autocast(matrix.device.type, enabled=False):
        squares: Tensor = torch.linalg.vecdot(entries, entries)
    return squares


def _spectral_entropy(eigenvalues: Tensor, alpha: float) -> Tensor:
    """The formula for eigenvalues ``(..., n)`` of sum 1; ``alpha`` is not 2."""
    positive = eigenvalues > torch.finfo(eigenvalues.dtype).eps
    # Where this is 1, its logarithm is 0 and no gradient becomes 0 times infinity.
    logs = eigenvalues.where(positive, 1).log()
    if alpha == 1:
        nats = -(eigenvalues * logs).sum(-1)
    elif abs(alpha - 1) < _NEAR_ONE:
        # lambda^alpha - lambda. At a zero it is 0 and, for alpha > 1, falls with slope 1; rounding
        # there must not reach the value, which is divided by something small.
        falling = eigenvalues.detach() - eigenvalues if alpha > 1 else 0.0
        excess = torch.where(positive, eigenvalues * torch.expm1((alpha - 1) * logs), falling)
        nats = excess.sum(-1).log1p() / (1 - alpha)
    else:
        nats = (alpha * logs).where(positive, -math.inf).logsumexp(-1) / (1 - alpha)
    return nats / math.log(2)


def _samples(x: Tensor) -> Tensor:
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"Expected samples (..., n, d), got {tuple(x.shape)}.")
    return x.float() if x.dtype.itemsize < 4 else x


def _checked(*matrices: Tensor) -> list[Tensor]:
    """The matrices in fp32 at least, after checking their shapes."""
    if not matrices:
        raise ValueError("Expected at least one matrix (..., n, n), got none.")
    for matrix in matrices:
        shape = tuple(matrix.shape)
        if len(shape) < 2 or shape[-1] != shape[-2] or matrix.numel() == 0:
            raise ValueError(f"Expected square matrices (..., n, n), got {shape}.")
        if matrix.shape != matrices[0].shape:
            first = tuple(matrices[0].shape)
            raise ValueError(f"Expected matrices of the same samples, got {first} and {shape}.")
    return [m.float() if m.dtype.itemsize < 4 else m for m in matrices]
