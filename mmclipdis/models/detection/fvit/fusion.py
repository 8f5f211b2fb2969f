"""Scores of an open-vocabulary detector: its own classifier and CLIP's, for every proposal.

Source: F-ViT, the detector of CLIPSelf (ICLR 2024), after F-VLM (ICLR 2023), eq. 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmclipdis.utils.precision import without_autocast


def fuse_scores(p_det: Tensor, p_vlm: Tensor, novel: Tensor, alpha: float, beta: float) -> Tensor:
    r"""Geometric mean of two probabilities, which trusts CLIP more where the detector has not
    been trained.

    .. math:: s_c = p_{det}^{1-\gamma_c}\, p_{vlm}^{\gamma_c}, \qquad
              \gamma_c = \beta \text{ for novel } c,\ \alpha \text{ for base and background}

    Args:
        p_det: ``(n, K + 1)``, softmax over the K classes and the background, which is last.
        p_vlm: The same of CLIP.
        novel: ``(K,)`` bool.
        alpha: :math:`\alpha` in [0, 1]; 0 leaves CLIP out, 1 the detector.
        beta: :math:`\beta` in [0, 1].

    Returns:
        ``(n, K + 1)`` float32 (or float64). The rows do not sum to 1: nothing is normalised again.

    Raises:
        ValueError: shapes that do not fit, or a weight outside [0, 1].
    """
    if p_det.ndim != 2 or p_det.shape != p_vlm.shape or novel.shape != (p_det.shape[1] - 1,):
        raise ValueError(
            "expected probabilities (n, K + 1) twice and flags (K,), got "
            f"{tuple(p_det.shape)}, {tuple(p_vlm.shape)} and {tuple(novel.shape)}"
        )
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    dtype = torch.promote_types(p_det.dtype, torch.float32)
    exponent = torch.full(p_det.shape[1:], float(alpha), dtype=dtype, device=p_det.device)
    exponent[:-1][novel.to(p_det.device)] = beta
    with without_autocast(p_det):
        return p_det.to(dtype) ** (1 - exponent) * p_vlm.to(dtype) ** exponent
