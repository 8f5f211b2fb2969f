"""The mmcv ops that the stand-in really has, with the signatures of ``mmcv._ext``.

Boxes are (x1, y1, x2, y2) in pixels. The ``*_forward`` and ``*_backward`` functions write their
result into the buffer that mmcv hands in, as the compiled ops do. Ops are differentiated by mmcv's
own autograd functions, which call the ``*_backward`` of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

AVERAGE = 1  # mmcv's pool_mode: 0 is max, 1 is average
SOFT_NMS_METHODS = {0: "naive", 1: "linear", 2: "gaussian"}


def _supported_float(tensor: Tensor) -> Tensor:
    """Return the tensor in a type that torchvision's kernels have on its device."""
    half_on_gpu = tensor.dtype == torch.half and tensor.is_cuda
    if tensor.dtype in (torch.float32, torch.float64) or half_on_gpu:
        return tensor
    return tensor.float()


def _pairwise_iou(boxes: Tensor, others: Tensor, offset: int = 0) -> Tensor:
    """IoU (N, M) of boxes (N, 4) and (M, 4) whose sides are ``x2 - x1 + offset``.

    Two boxes without area have IoU 0 (not 0 / 0).
    """
    moved = boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.box_iou(boxes + moved, others + moved).nan_to_num(nan=0.0)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices of the kept boxes by falling score; a box is dropped when IoU > threshold.

    ``offset=1`` counts both border pixels, that is sides are ``x2 - x1 + 1``: the same as moving
    x2 and y2 by one pixel, since that leaves every intersection one pixel wider, too.
    """
    boxes = _supported_float(boxes)
    moved = boxes + boxes.new_tensor([0, 0, offset, offset]) if offset else boxes
    return torchvision.ops.nms(moved, scores.to(boxes.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al. 2017): lower the scores of neighbours instead of dropping them.

    Repeatedly the best box is taken and each remaining score is multiplied by f(IoU): naive 0 and
    linear 1 - IoU where IoU >= threshold, Gaussian exp(-IoU^2 / sigma) everywhere. Boxes whose
    score falls below ``min_score`` are dropped.

    Args:
        dets: buffer (N, 5); its first K rows become the boxes and scores, by falling score.

    Returns:
        Indices (K,) of the kept boxes.
    """
    if method not in SOFT_NMS_METHODS:
        raise ValueError(f"soft-NMS method must be one of {SOFT_NMS_METHODS}, got {method}")
    scores = scores.clone()
    alive = torch.ones_like(scores, dtype=torch.bool)
    kept: list[int] = []
    while bool(alive.any()):
        best = int(scores.masked_fill(~alive, -torch.inf).argmax())
        dets[len(kept), :4] = boxes[best]
        dets[len(kept), 4] = scores[best]
        kept.append(best)
        alive[best] = False
        iou = _pairwise_iou(boxes[best : best + 1], boxes, offset)[0]
        if method == 2:
            weight = torch.exp(-(iou**2) / sigma)
        else:
            decayed = 1 - iou if method == 1 else torch.zeros_like(iou)
            weight = torch.where(iou >= iou_threshold, decayed, torch.ones_like(iou))
        scores = torch.where(alive, scores * weight, scores)
        alive &= scores >= min_score
    return torch.tensor(kept, dtype=torch.long)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group boxes by NMS: each kept box first, then those it suppresses (IoU >= threshold).

    Args:
        dets: boxes and scores (N, 5).
    """
    iou = _pairwise_iou(dets[:, :4], dets[:, :4])
    order = dets[:, 4].argsort(descending=True, stable=True).tolist()
    groups: list[list[int]] = []
    while order:
        best = order[0]
        matched = [other for other in order[1:] if iou[best, other] >= iou_threshold]
        groups.append([best, *matched])
        order = [other for other in order[1:] if other not in set(matched)]
    return groups


def _check_average(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise ValueError(
            "RoIAlign with pool_mode='max' is only in an mmcv with compiled ops, and the one "
            "installed has none; use pool_mode='avg'."
        )


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign by average; rois (R, 5) are (batch index, x1, y1, x2, y2).

    ``argmax_y`` and ``argmax_x`` are buffers of the max mode, which torchvision does not have.
    """
    _check_average(pool_mode)
    features = _supported_float(input)
    pooled = torch.ops.torchvision.roi_align(
        features,
        rois.to(features.dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        sampling_ratio,
        aligned,
    )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of :func:`roi_align_forward` with respect to the features."""
    _check_average(pool_mode)
    grad = _supported_float(grad_output)
    batch, channels, height, width = grad_input.shape
    result = torch.ops.torchvision._roi_align_backward(
        grad,
        rois.to(grad.dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        batch,
        channels,
        height,
        width,
        sampling_ratio,
        aligned,
    )
    grad_input.copy_(result)


def _focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    """Focal loss (N, C) of logits (N, C); a target outside [0, C) is background."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    one_hot = (target[:, None] == classes).to(logits.dtype)  # (N, C)
    loss = sigmoid_focal_loss(logits, one_hot, alpha=alpha, gamma=gamma, reduction="none")
    if weight.numel() > 0:
        of_sample = torch.where(one_hot.any(1), one_hot @ weight.to(logits.dtype), 1)  # (N,)
        loss = loss * of_sample[:, None]
    return loss


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    """Sigmoid focal loss (Lin et al. 2017, eq. 5), not reduced.

    Args:
        input: logits (N, C).
        target: class indices (N,); an index outside [0, C) is background.
        weight: weight of each class (C,), applied to the whole row of a sample, or empty.
        output: buffer (N, C) for the loss.
    """
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    """Gradient of :func:`sigmoid_focal_loss_forward` with respect to the logits."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        loss = _focal_loss(logits, target, weight, gamma, alpha)
        grad_input.copy_(torch.autograd.grad(loss.sum(), logits)[0])


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2021, eq. 3) with ``grid_sample``.

    ``value_level_start_index`` follows from the shapes, and ``im2col_step`` only tunes the
    compiled kernel.
    """
    # imported late: mmcv.ops imports mmcv._ext, which imports this file
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(
        value, value_spatial_shapes.tolist(), sampling_locations, attention_weights
    )


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Gradients of :func:`ms_deform_attn_forward`."""
    with torch.enable_grad():
        inputs = [
            tensor.detach().requires_grad_()
            for tensor in (value, sampling_locations, attention_weights)
        ]
        output = ms_deform_attn_forward(
            inputs[0],
            value_spatial_shapes,
            value_level_start_index,
            inputs[1],
            inputs[2],
            im2col_step=im2col_step,
        )
        gradients = torch.autograd.grad(output, inputs, grad_output)
    for buffer, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients):
        buffer.copy_(gradient)


def get_compiler_version() -> str:
    """What compiled the ops, for reports on the environment."""
    return f"none (mmcv ops come from torchvision {torchvision.__version__})"


def get_compiling_cuda_version() -> str:
    """The CUDA version behind the ops, for reports on the environment."""
    return str(torch.version.cuda or "not available")


OPS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        nms,
        softnms,
        nms_match,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}
