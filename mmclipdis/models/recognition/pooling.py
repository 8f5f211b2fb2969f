"""From tokens of an image to a pair of logits a class: every text looks for its own places."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.utils.precision import without_autocast

#: Where the negative text of a class is read: at the places that it fits best itself (DCLIP), or at
#: those of the positive text (DualCoOp).
POOLINGS = ("separate", "positive")

#: What the image projector is given: every token, which are pooled then (DCLIP), or what CLIP's own
#: tokens pool to (the other row of DCLIP's ablation).
ORDERS = ("project_pool", "pool_project")


def spatial_logits(
    image: Tensor,
    text: Tensor,
    temperature: float = 20.0,
    scale: float = 5.0,
    pooling: str = "separate",
) -> Tensor:
    r"""Cosines of tokens and texts, averaged over the places where the text fits.

    .. math:: s_{rl} = \tau \cos(x_l, t_r), \qquad
              \ell_r = \gamma \sum_l \operatorname{softmax}_l(s_r)_l \, s_{rl}

    With :math:`\tau = 20` and :math:`\gamma = 5` a constant map has CLIP's own logits, 100 times
    the cosine. The probability of a class is the softmax over its pair,
    :math:`\sigma(\ell_{pos} - \ell_{neg})`.

    Args:
        image: Tokens (B, L, d), of any length.
        text: (2N, d), of any length: N negative texts, then the N positive ones.
        temperature: :math:`\tau`, inverse temperature of the softmax over places.
        scale: :math:`\gamma`.
        pooling: ``'separate'``: every text has weights of its own. ``'positive'``: those of the
            positive text hold for both.

    Returns:
        (B, 2, N), float32 or wider, index 0 negative; under autocast, too. The largest tensor in
        between is (B, 2N, L).

    Raises:
        ValueError: for another pooling, shapes that do not fit, or an odd number of texts.

    Source: DCLIP (arXiv 2502.02977), appendix B; ``positive``: DualCoOp (NeurIPS 2022).
    """
    _check(image, text, pooling)
    # A half-precision cosine times 100 has steps of 0.05 to 0.4.
    with without_autocast(image):
        scores, weights, _ = _places(image, text, temperature, pooling)
        return scale * (weights * scores).sum(dim=3)


def pooled_logits(
    image: Tensor,
    clip_text: Tensor,
    text: Tensor,
    project: Callable[[Tensor], Tensor],
    temperature: float = 20.0,
    scale: float = 5.0,
    pooling: str = "separate",
) -> Tensor:
    r"""As :func:`spatial_logits`, in the other order: tokens are averaged, then projected.

    .. math:: w_r = \operatorname{softmax}_l(\tau \cos(x_l, t_r)), \qquad
              \ell_r = \gamma \tau \cos\Bigl(P \sum_l w_{rl} \frac{x_l}{|x_l|}, \, t'_r\Bigr)

    x and t are of CLIP's own space, which thereby decides about the places; P is the image
    projector, and t' are the projected texts. Of a constant map both orders make the same logits.

    Args:
        image: CLIP's tokens (B, L, D).
        clip_text: CLIP's texts (2N, D), negative ones first.
        text: The projected texts (2N, d').
        project: P, (..., D) to (..., d').
        temperature, scale, pooling: As in :func:`spatial_logits`.

    Returns:
        (B, 2, N), as :func:`spatial_logits`. The largest tensors in between are (B, 2N, L) and
        (B, 2N, D).

    Raises:
        ValueError: as :func:`spatial_logits`, or texts of another number.

    Source: DCLIP (arXiv 2502.02977) says of this order its mAP alone, 81.3 on COCO (85.6 in the
    order of :func:`spatial_logits`); how it pooled is not said, and this is ours.
    """
    _check(image, clip_text, pooling)
    if text.ndim != 2 or len(text) != len(clip_text):
        raise ValueError(
            f"expected projected texts ({len(clip_text)}, d'), one for each of CLIP's, got "
            f"{tuple(text.shape)}"
        )
    with without_autocast(image):
        _, weights, unit = _places(image, clip_text, temperature, pooling)
        pooled = weights @ unit[:, None]  # (B, 2, N, D), or (B, 1, N, D) for "positive"
        sides = text.to(unit.dtype).unflatten(0, (2, -1))
        return scale * temperature * F.cosine_similarity(project(pooled), sides, dim=3)


def _places(
    image: Tensor, text: Tensor, temperature: float, pooling: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, 2, N, L), weights of places (B, 2 or 1, N, L) and unit tokens (B, L, d)."""
    dtype = torch.promote_types(image.dtype, torch.float32)
    unit = F.normalize(image.to(dtype), dim=2)
    scores = temperature * F.normalize(text.to(dtype), dim=1) @ unit.mT  # (B, 2N, L)
    scores = scores.unflatten(1, (2, -1))  # (B, 2, N, L)
    deciding = scores if pooling == "separate" else scores[:, 1:]
    return scores, deciding.softmax(dim=3), unit


def _check(image: Tensor, text: Tensor, pooling: str) -> None:
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    if image.ndim != 3 or text.ndim != 2 or image.shape[2] != text.shape[1] or len(text) % 2:
        raise ValueError(
            f"expected tokens (B, L, d) and texts (2N, d), got {tuple(image.shape)} and "
            f"{tuple(text.shape)}"
        )
