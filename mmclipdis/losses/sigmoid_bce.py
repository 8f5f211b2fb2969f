"""Binary cross-entropy of every class against a label map, without a one-hot target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: ``softplus`` returns its argument above this; 50 is exact to the last bit of a float64.
_LINEAR_FROM = 50.0


def gathered_bce(
    logits: Tensor, labels: Tensor, *, ignore_index: int = 255, ignore_as_negative: bool = True
) -> Tensor:
    r"""Mean BCE-with-logits over all classes and pixels, from one gather.

    For one-hot targets :math:`\mathrm{BCE}(z, y) = \mathrm{softplus}(z) - z\,y`, so

    .. math:: L = \Big(\sum_{p,t} \mathrm{softplus}(z_{pt}) - \sum_{p\ \mathrm{valid}}
              z_{p, y_p}\Big) / (P \cdot T)

    and the dense target (float, as large as the logits) is never made.

    Args:
        logits: ``(B, T, H, W)``, at the resolution of the labels.
        labels: ``(B, H, W)``, class numbers below T, or ``ignore_index``.
        ignore_index: Label of pixels without class.
        ignore_as_negative: True counts such pixels as negatives of every class, as the released
            CAT-Seg does (its published numbers come from that); False leaves them out of both
            sums and of ``P``.

    Returns:
        The mean, a scalar; 0 (with gradient 0) if no pixel counts.

    Raises:
        ValueError: Shapes that do not fit, or a label that is neither a class nor
            ``ignore_index``.

    Source: CAT-Seg (CVPR 2024), released code; there with dense targets, same value.
    """
    if logits.ndim != 4 or labels.shape != (len(logits), *logits.shape[2:]):
        raise ValueError(
            f"Expected logits (B, T, H, W) and labels (B, H, W), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    classes = logits.shape[1]
    labels = labels.long()
    valid = labels != ignore_index
    index = labels.masked_fill(~valid, 0)
    if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < classes):
        wrong = int(index.max()) if int(index.max()) >= classes else int(index.min())
        raise ValueError(
            f"Label {wrong} in the data, but the vocabulary has {classes} classes (0 to "
            f"{classes - 1}, ignore_index={ignore_index}). Use the vocabulary of the data set."
        )
    negative = F.softplus(logits, threshold=_LINEAR_FROM)
    if not ignore_as_negative:
        negative = torch.where(valid.unsqueeze(1), negative, 0.0)
    own = logits.gather(1, index.unsqueeze(1)).squeeze(1)
    total = negative.sum() - torch.where(valid, own, 0.0).sum()
    pixels = labels.numel() if ignore_as_negative else valid.sum().clamp(min=1)
    return total / (pixels * classes)
