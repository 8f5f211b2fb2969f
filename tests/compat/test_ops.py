"""The stand-in ops equal loop-based references and have the right gradients."""

from __future__ import annotations

import math

import mmcv.ops as mmcv_ops  # the stand-in, which tests/conftest.py installs
import pytest
import torch
from torch import Tensor

from mmclipdis.compat.mmcv_ops import MissingOpError, uses_stand_in

pytestmark = pytest.mark.skipif(not uses_stand_in(), reason="the full mmcv is installed")


def random_boxes(count: int, seed: int = 0, size: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, size, (count, 2), generator=generator).double()
    side = torch.randint(0, 20, (count, 2), generator=generator).double()
    scores = torch.rand(count, generator=generator).double()
    return torch.cat([corner, corner + side], 1), scores


def iou_of(a: list[float], b: list[float], offset: int) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    inter = width * height
    areas = [(x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b)]
    union = sum(areas) - inter
    return inter / union if union > 0 else 0.0


def naive_nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        others = [iou_of(boxes[index].tolist(), boxes[k].tolist(), offset) for k in kept]
        if all(iou <= threshold for iou in others):
            kept.append(index)
    return kept


def naive_soft_nms(
    boxes: Tensor, scores: Tensor, threshold: float, sigma: float, low: float, method: str, off: int
) -> tuple[list[int], list[float]]:
    left = {i: float(s) for i, s in enumerate(scores)}
    order, values = [], []
    while left:
        best = max(left, key=lambda i: left[i])
        order.append(best)
        values.append(left.pop(best))
        for i in list(left):
            iou = iou_of(boxes[best].tolist(), boxes[i].tolist(), off)
            if method == "gaussian":
                left[i] *= math.exp(-(iou**2) / sigma)
            elif iou >= threshold:
                left[i] *= (1 - iou) if method == "linear" else 0.0
            if left[i] < low:
                del left[i]
    return order, values


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_equals_the_loop(offset: int, threshold: float) -> None:
    boxes, scores = random_boxes(60, seed=offset)
    dets, kept = mmcv_ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == naive_nms(boxes, scores, threshold, offset)
    assert torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], 1))


def test_nms_offset_counts_both_border_pixels() -> None:
    # 10 and 10 pixel columns share 5: IoU 1/3; without the border pixel 9 and 9 share 4: 2/7
    boxes = torch.tensor([[0.0, 0, 9, 9], [5.0, 0, 14, 9]])
    scores = torch.tensor([0.9, 0.8])
    assert mmcv_ops.nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]
    assert mmcv_ops.nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]


def test_nms_filters_by_score_and_count_and_takes_numpy() -> None:
    boxes, scores = random_boxes(30, seed=3)
    reference = [i for i in naive_nms(boxes, scores, 0.5, 0) if scores[i] > 0.4][:5]
    _, kept = mmcv_ops.nms(
        boxes.numpy(), scores.numpy(), 0.5, score_threshold=0.4, max_num=5, offset=0
    )
    assert kept.tolist() == reference


def test_nms_takes_half_precision_and_mixed_types() -> None:
    boxes, scores = random_boxes(30, seed=4)
    kept = mmcv_ops.nms(boxes.half(), scores.half(), 0.5)[1]
    assert kept.tolist() == naive_nms(boxes, scores.half().double(), 0.5, 0)


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
def test_soft_nms_equals_the_loop(method: str, offset: int) -> None:
    boxes, scores = random_boxes(40, seed=7)
    dets, kept = mmcv_ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    order, values = naive_soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    assert kept.tolist() == order
    torch.testing.assert_close(dets[:, 4], torch.tensor(values, dtype=torch.double))
    assert torch.equal(dets[:, :4], boxes[kept])


def test_soft_nms_of_no_boxes_is_empty() -> None:
    dets, kept = mmcv_ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and kept.shape == (0,)


def test_nms_match_groups_every_box_once() -> None:
    boxes, scores = random_boxes(40, seed=5)
    groups = mmcv_ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.4)
    assert sorted(i for group in groups for i in group.tolist()) == list(range(40))
    for group in groups:
        first, *rest = group.tolist()
        for other in rest:
            assert iou_of(boxes[first].tolist(), boxes[other].tolist(), 0) >= 0.4
            assert scores[other] <= scores[first]


def test_batched_nms_keeps_classes_apart() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 10], [0.0, 0, 10, 10]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0])
    config = {"type": "nms", "iou_threshold": 0.5}
    assert mmcv_ops.batched_nms(boxes, scores, classes, config)[1].tolist() == [0, 1]


def bilinear(feature: Tensor, y: float, x: float) -> Tensor:
    height, width = feature.shape[-2:]
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros(feature.shape[0], dtype=feature.dtype)
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy, dx = (0.0 if y0 == height - 1 else y - y0), (0.0 if x0 == width - 1 else x - x0)
    top = feature[:, y0, x0] * (1 - dx) + feature[:, y0, x1] * dx
    bottom = feature[:, y1, x0] * (1 - dx) + feature[:, y1, x1] * dx
    return top * (1 - dy) + bottom * dy


def naive_roi_align(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    output = features.new_zeros(len(rois), features.shape[1], *size)
    shift = 0.5 if aligned else 0.0
    for n, roi in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (value * scale - shift for value in roi[1:])
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        bin_h, bin_w = height / size[0], width / size[1]
        rows = ratio or math.ceil(height / size[0])
        columns = ratio or math.ceil(width / size[1])
        for i in range(size[0]):
            for j in range(size[1]):
                for a in range(rows):
                    for b in range(columns):
                        y = y1 + i * bin_h + (a + 0.5) * bin_h / rows
                        x = x1 + j * bin_w + (b + 0.5) * bin_w / columns
                        output[n, :, i, j] += bilinear(features[int(roi[0])], y, x)
        output[n] /= max(rows * columns, 1)
    return output


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_equals_the_loop(aligned: bool, sampling_ratio: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 7, 9, generator=generator, dtype=torch.double)
    rois = torch.tensor([[0, 1.0, 2.0, 12.0, 9.0], [1, 0.5, 0.5, 17.9, 13.9], [1, 3, 3, 4, 4]])
    layer = mmcv_ops.RoIAlign((2, 3), 0.5, sampling_ratio, "avg", aligned)
    expected = naive_roi_align(features, rois, (2, 3), 0.5, sampling_ratio, aligned)
    torch.testing.assert_close(layer(features, rois.double()), expected)


def test_roi_align_gradient() -> None:
    features = torch.randn(1, 2, 5, 6, dtype=torch.double, requires_grad=True)
    rois = torch.tensor([[0, 0.7, 0.2, 4.1, 3.9], [0, 1.0, 1.0, 5.0, 4.0]], dtype=torch.double)
    layer = mmcv_ops.RoIAlign((2, 2), 1.0, 0, "avg", True)
    assert torch.autograd.gradcheck(lambda x: layer(x, rois), (features,))


def test_roi_align_accepts_bfloat16_features() -> None:
    features = torch.randn(1, 2, 5, 6)
    rois = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])
    layer = mmcv_ops.RoIAlign((2, 2), 1.0, 2, "avg", True)
    low = layer(features.bfloat16(), rois.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), layer(features, rois), atol=0.05, rtol=0.05)


def test_roi_align_max_mode_says_what_to_use() -> None:
    layer = mmcv_ops.RoIAlign((2, 2), 1.0, 2, "max", True)
    with pytest.raises(ValueError, match="pool_mode='avg'"):
        layer(torch.zeros(1, 1, 4, 4), torch.tensor([[0, 0.0, 0.0, 3.0, 3.0]]))


def naive_focal(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    loss = torch.zeros_like(logits)
    for n in range(logits.shape[0]):
        for c in range(logits.shape[1]):
            p = 1 / (1 + math.exp(-float(logits[n, c])))
            if int(target[n]) == c:
                loss[n, c] = -alpha * (1 - p) ** gamma * math.log(p)
            else:
                loss[n, c] = -(1 - alpha) * p**gamma * math.log(1 - p)
    return loss


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_sigmoid_focal_loss_equals_the_loop(reduction: str) -> None:
    logits = torch.randn(6, 4, dtype=torch.double)
    target = torch.tensor([0, 3, 1, 4, 2, -1])  # 4 and -1 are background
    loss = naive_focal(logits, target, 2.0, 0.25)
    expected = {"none": loss, "sum": loss.sum(), "mean": loss.sum() / 6}[reduction]
    result = mmcv_ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, reduction)
    torch.testing.assert_close(result, expected)


def test_sigmoid_focal_loss_weights_samples_by_their_class() -> None:
    logits, target = torch.randn(3, 2, dtype=torch.double), torch.tensor([0, 1, 2])
    weight = torch.tensor([2.0, 5.0], dtype=torch.double)
    plain = naive_focal(logits, target, 2.0, 0.25)
    result = mmcv_ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, "none")
    torch.testing.assert_close(result, plain * torch.tensor([[2.0], [5.0], [1.0]]).double())


def test_sigmoid_focal_loss_gradient() -> None:
    logits = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    target = torch.tensor([0, 2, 3, 1])
    assert torch.autograd.gradcheck(
        lambda x: mmcv_ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, "sum"), (logits,)
    )


def naive_deformable(value: Tensor, shapes: list[list[int]], where: Tensor, how: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    queries, levels, points = where.shape[1], where.shape[3], where.shape[4]
    output = value.new_zeros(batch, queries, heads, channels)
    starts = [0]
    for height, width in shapes:
        starts.append(starts[-1] + height * width)
    for b in range(batch):
        for q in range(queries):
            for h in range(heads):
                for level in range(levels):
                    rows, columns = shapes[level]
                    flat = value[b, starts[level] : starts[level + 1], h]
                    padded = torch.zeros(channels, rows + 2, columns + 2, dtype=value.dtype)
                    padded[:, 1:-1, 1:-1] = flat.T.reshape(channels, rows, columns)
                    for p in range(points):
                        x, y = where[b, q, h, level, p].tolist()
                        y, x = y * rows - 0.5 + 1, x * columns - 0.5 + 1
                        output[b, q, h] += how[b, q, h, level, p] * bilinear(padded, y, x)
    return output.flatten(2)


def deformable_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = torch.tensor([[3, 4], [2, 2]])
    value = torch.randn(2, 16, 2, 3, generator=generator, dtype=torch.double)
    where = torch.rand(2, 3, 2, 2, 2, 2, generator=generator, dtype=torch.double) * 0.9 + 0.05
    how = torch.rand(2, 3, 2, 2, 2, generator=generator, dtype=torch.double)
    return value, shapes, torch.tensor([0, 12]), where, how


def test_deformable_attention_equals_the_loop() -> None:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    value, shapes, starts, where, how = deformable_inputs()
    result = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, where, how, 64)
    torch.testing.assert_close(result, naive_deformable(value, shapes.tolist(), where, how))


def test_deformable_attention_gradients() -> None:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    value, shapes, starts, where, how = deformable_inputs()
    inputs = tuple(x.requires_grad_() for x in (value, where, how))
    assert torch.autograd.gradcheck(
        lambda v, w, h: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, w, h, 64), inputs
    )


def test_missing_op_is_importable_and_names_itself_when_called() -> None:
    from mmcv.ops import box_iou_rotated

    with pytest.raises(MissingOpError, match="'box_iou_rotated'.*'(onedl-)?mmcv==2"):
        box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))


def test_softmax_focal_loss_and_deform_conv_raise_by_name() -> None:
    import mmcv._ext

    for name in ("softmax_focal_loss_forward", "deform_conv_forward", "carafe_forward"):
        with pytest.raises(MissingOpError, match=name):
            getattr(mmcv._ext, name)()
