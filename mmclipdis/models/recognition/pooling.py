"""From tokens of an image to a pair of logits a class: every text looks for its own places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.utils.precision import without_autocast

#: Where the negative text of a class is read: at the places that it fits best itself (DCLIP), or at
#: those of the positive text (DualCoOp).
POOLINGS = ("separate", "positive")


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
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    if image.ndim != 3 or text.ndim != 2 or image.shape[2] != text.shape[1] or len(text) % 2:
        raise ValueError(
            f"expected tokens (B, L, d) and texts (2N, d), got {tuple(image.shape)} and "
            f"{tuple(text.shape)}"
        )
    # A half-precision cosine times 100 has steps of 0.05 to 0.4.
    with without_autocast(image):
        dtype = torch.promote_types(image.dtype, torch.float32)
        unit = F.normalize(image.to(dtype), dim=2)
        scores = temperature * F.normalize(text.to(dtype), dim=1) @ unit.mT  # (B, 2N, L)
        scores = scores.unflatten(1, (2, -1))  # (B, 2, N, L)
        deciding = scores if pooling == "separate" else scores[:, 1:]
        return scale * (deciding.softmax(dim=3) * scores).sum(dim=3)
