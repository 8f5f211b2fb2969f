"""DeCLIP's content loss: region features of the student against crop embeddings of the teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.losses.ranks import count_per_rank


def content_loss(student: Tensor, teacher: Tensor, across_ranks: bool = True) -> Tensor:
    r"""One minus the mean cosine of all boxes, pooled over the images of the whole batch.

    .. math:: L = 1 - \frac{1}{M} \sum_{m=1}^{M} \cos(s_m, t_m)

    An image with more boxes weighs more. In a distributed run the batch spans the ranks, which
    hold different numbers of boxes: a rank returns its own sum over the *mean* number of boxes a
    rank, so the average over ranks, of values and of gradients (as DDP takes it), is the loss of
    all boxes together. Features stay where they are; one number is reduced. Every rank has to
    make the call, also one without boxes.

    Args:
        student: Region features ``(M, D)``. Half types are computed in fp32.
        teacher: Crop embeddings ``(M, D)`` of the same boxes; gets no gradient.
        across_ranks: Whether the default process group, if there is one, shares the batch; False
            counts this process's boxes only, without communication.

    Returns:
        A scalar; 0 with gradient 0 if there is no box, so that DDP's ranks still agree on which
        parameters have a gradient.

    Raises:
        ValueError: Shapes that differ or are not ``(M, D)``.

    Source: DeCLIP (CVPR 2025), eq. 8; pooled as in the released code.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"Expected student and teacher features (M, D) of the same boxes, got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}."
        )
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = (x.float() if x.dtype.itemsize < 4 else x for x in (student, teacher))
        boxes = student.new_tensor(len(student))
        distance = 1 - F.cosine_similarity(student, teacher.detach(), dim=1)
        return distance.sum() / count_per_rank(boxes, across_ranks)
