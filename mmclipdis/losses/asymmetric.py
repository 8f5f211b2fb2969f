"""Asymmetric loss (ASL) of multi-label recognition, with unknown labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.losses.ranks import count_per_rank, world_size
from mmclipdis.losses.reductions import Reduction, check_reduction

UNKNOWN = -1


def asymmetric_loss(
    logits: Tensor,
    target: Tensor,
    gamma_pos: float = 1.0,
    gamma_neg: float = 2.0,
    clip: float = 0.05,
    detach_focusing: bool = True,
    eps: float | None = None,
    reduction: Reduction = "sum",
    *,
    weight: Tensor | None = None,
    avg_factor: float | Tensor | None = None,
    across_ranks: bool = True,
) -> Tensor:
    r"""Binary cross-entropy that forgets easy negatives faster than easy positives.

    With :math:`p = \sigma(z)` and :math:`p_m = \max(p - \delta, 0)` a label costs

    .. math:: L = -y\,(1-p)^{\gamma_+} \log p - (1-y)\,p_m^{\gamma_-} \log(1-p_m)

    DCLIP's and DualCoOp's pair of logits enters as :math:`z = l_{pos} - l_{neg}`: the softmax over
    the pair is :math:`\sigma(z)`. Equal exponents and ``clip=0`` make the focal loss, exponents 0
    and ``clip=0`` binary cross-entropy.

    In a distributed run the batch spans the ranks, whose gradients DDP averages. So that the
    average is the loss of the joint batch, a rank's sum is multiplied by the number of ranks, and
    its mean divides by the mean number of known labels a rank (one number is reduced; every rank
    has to make the call).

    Args:
        logits: z, ``(B, N)``. Half types are computed in fp32, also under autocast.
        target: ``(B, N)``: 1 present, 0 absent, -1 unknown. An unknown label counts neither in
            the loss nor in the gradient, whatever its logit, nan and inf included.
        gamma_pos: :math:`\gamma_+`, at least 0.
        gamma_neg: :math:`\gamma_-`, at least 0. DCLIP and DualCoOp use 2, the ASL paper 4.
        clip: :math:`\delta` in [0, 1): negatives less probable than that cost nothing.
        detach_focusing: Whether the two powers are factors without gradient, as in the released
            trainings (ASL, DualCoOp).
        eps: None takes stable logarithms of the sigmoid. A number is the lower limit inside the
            logarithms, as in the released code (1e-6 in DualCoOp), for comparison: a positive
            with p below it has no gradient any more.
        reduction: ``"sum"`` over batch and classes (DCLIP; its loss weights belong to that),
            ``"mean"`` over the known labels (0 if there is none), or ``"none"``: ``(B, N)``, 0 at
            unknown labels, nothing done about ranks.
        weight: Factors of images ``(B,)`` or labels ``(B, N)``.
        avg_factor: What ``"mean"`` divides by instead of the known labels, as it is: no ranks are
            asked. Not used by the others, a sum remains a sum.
        across_ranks: Whether the default process group, if there is one, shares the batch; False
            looks at this process only, without communication.

    Returns:
        A scalar, or ``(B, N)`` for ``"none"``.

    Raises:
        ValueError: Shapes that do not fit, a label other than 0, 1 and -1, or an option outside
            its range.

    Source: ASL (ICCV 2021), eqs. 4 to 7; DCLIP (arXiv 2502.02977); DualCoOp (NeurIPS 2022).
    """
    check_asymmetric_options(gamma_pos, gamma_neg, clip, eps, reduction)
    _check_labels(logits, target, weight)
    known = target != UNKNOWN
    # autocast has no half type for any of the operations below
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    z = torch.where(known, logits, 0.0)  # before anything is computed: nan times 0 is nan
    losses = torch.where(
        target == 1,
        _positive(z, gamma_pos, detach_focusing, eps),
        _negative(z, gamma_neg, clip, detach_focusing, eps),
    )
    if weight is not None:
        losses = losses * (weight if weight.ndim == 2 else weight.unsqueeze(1))
    losses = torch.where(known, losses, 0.0)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum() * world_size(across_ranks)
    if avg_factor is None:
        avg_factor = count_per_rank(known.sum().to(losses.dtype), across_ranks)
    return losses.sum() / avg_factor


def check_asymmetric_options(
    gamma_pos: float, gamma_neg: float, clip: float, eps: float | None, reduction: str
) -> None:
    """Check the options of :func:`asymmetric_loss`.

    Raises:
        ValueError: An option outside its range.
    """
    if not (gamma_pos >= 0 and gamma_neg >= 0):
        raise ValueError(
            f"gamma_pos and gamma_neg must be at least 0, got {gamma_pos} and {gamma_neg}."
        )
    if not 0 <= clip < 1:
        raise ValueError(f"clip is a probability in [0, 1), got {clip}.")
    if eps is not None and not 0 < eps < 1:
        raise ValueError(f"eps must lie between 0 and 1 (exclusive) or be None, got {eps}.")
    check_reduction(reduction)


def _check_labels(logits: Tensor, target: Tensor, weight: Tensor | None) -> None:
    if logits.ndim != 2 or logits.shape != target.shape:
        raise ValueError(
            f"Expected logits and target (B, N) of the same shape, got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}."
        )
    if weight is not None and weight.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            f"Expected weight (B,) or (B, N) for logits {tuple(logits.shape)}, got "
            f"{tuple(weight.shape)}."
        )
    wrong = (target != 0) & (target != 1) & (target != UNKNOWN)
    if bool(wrong.any()):
        raise ValueError(
            f"target must hold 1 (present), 0 (absent) and -1 (unknown) only, got "
            f"{target[wrong][0].item()}; soft labels are not supported."
        )


def _positive(z: Tensor, gamma: float, detach: bool, eps: float | None) -> Tensor:
    """What present classes cost, from ``z`` of any."""
    focusing = (gamma * F.logsigmoid(-z)).exp()  # (1 - p)^gamma, also where 1 - p underflows
    log_p = F.logsigmoid(z) if eps is None else z.sigmoid().clamp(min=eps).log()
    return -(focusing.detach() if detach else focusing) * log_p


def _negative(z: Tensor, gamma: float, clip: float, detach: bool, eps: float | None) -> Tensor:
    """What absent classes cost, from ``z`` of any."""
    p = z.sigmoid()
    costs = ~(p <= clip)  # nan costs nan: at a cost of 0 only its gradient would be nan
    # the power of 0 may have an infinite slope, so that those below the margin take part with a 1
    focusing = torch.where(costs, p - clip, 1.0).pow(gamma)
    rest = (-z).sigmoid() + clip  # 1 - p as a sigmoid: exact where it is small, never below clip
    if eps is not None:
        log_rest = rest.clamp(min=eps, max=1).log()
    elif clip == 0:
        log_rest = F.logsigmoid(-z)
    else:
        log_rest = rest.clamp(max=1).log()
    return torch.where(costs, -(focusing.detach() if detach else focusing) * log_rest, 0.0)
