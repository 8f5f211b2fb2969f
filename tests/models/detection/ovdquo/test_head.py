"""Losses against loops over layers and images, and what is left of boxes and scores in the end."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

pytest.importorskip("mmdet")

from mmdet.models.layers import inverse_sigmoid

from mmclipdis.models.detection.ovdquo.denoising import DenoisingQueries
from mmclipdis.models.detection.ovdquo.head import OVDQUOHead
from mmclipdis.models.detection.ovdquo.options import TEST_CFG, checked_test_cfg
from mmclipdis.models.detection.ovdquo.targets import Targets
from tests.faults.endings import raises

LAYERS, QUERIES, WILDCARD = 3, 8, 3
METAS = [dict(img_path=f"{n}.png") for n in range(4)]


def head(**options):
    words = torch.nn.Identity()  # none are read here
    return OVDQUOHead(16, words, num_pred_layer=LAYERS + 1, **options)


def corners(box):
    cx, cy, w, h = box
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def overlaps(one, other):
    """IoU and GIoU with 1e-6 in the denominators."""
    a, b = corners(one), corners(other)
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = one[2] * one[3] + other[2] * other[3] - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = width * height / (union + 1e-6)
    return iou, iou - (hull - union) / (hull + 1e-6)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def naive_matches(logits, boxes, truth, labels, classes):
    """Query and box of each match in one image of one layer."""
    if not truth:
        return []
    cost = np.zeros((len(logits), len(truth)))
    allowed = np.zeros(cost.shape, dtype=bool)
    for q, (z, box) in enumerate(zip(logits, boxes)):
        p = sigmoid(z)
        positive = -math.log(p + 1e-12) * 0.25 * (1 - p) ** 2
        negative = -math.log(1 - p + 1e-12) * 0.75 * p**2
        for g, other in enumerate(truth):
            distance = sum(abs(x - y) for x, y in zip(box, other))
            giou = overlaps(box, other)[1]
            cost[q, g] = 2 * (positive - negative) + 5 * distance - 2 * giou
            wanted = WILDCARD if labels[g] == -1 else labels[g]
            allowed[q, g] = classes is None or classes[q] == wanted
    if classes is not None:
        for g, other in enumerate(truth):
            if not any(overlaps(b, other)[1] > 0 for b, ok in zip(boxes, allowed[:, g]) if ok):
                allowed[:, g] = False
    rows, columns = linear_sum_assignment(np.where(allowed, cost, 99.0))
    return [(q, g) for q, g in zip(rows.tolist(), columns.tolist()) if allowed[q, g]]


def naive_layer(logits, boxes, targets, classes):
    """Sums of the three losses of a layer, and numbers of real and pseudo matches."""
    objectness = distance = overlap = 0.0
    real = pseudo = 0
    for image, zs in enumerate(logits):
        truth, labels = targets.boxes[image].tolist(), targets.labels[image].tolist()
        weights = targets.weights[image].tolist()
        own = None if classes is None else classes[image]
        found = dict(naive_matches(zs, boxes[image], truth, labels, own))
        for q, z in enumerate(zs):
            p = sigmoid(z)
            if q not in found:
                objectness -= 0.75 * p**2 * math.log(1 - p)
                continue
            g = found[q]
            iou, giou = overlaps(boxes[image][q], truth[g])
            entropy = -iou * math.log(p) - (1 - iou) * math.log(1 - p)
            objectness += iou * entropy * math.sqrt(weights[g])
            if labels[g] == -1:
                pseudo += 1
                continue
            real += 1
            distance += sum(abs(x - y) for x, y in zip(boxes[image][q], truth[g]))
            overlap += 1 - giou
    return (objectness, distance, overlap), (real, pseudo)


def naive_losses(predicted, encoded, targets, classes, denoising=None):
    noisy = 0 if denoising is None else denoising.content.shape[1]
    logits = [[row[noisy:] for row in layer] for layer in predicted[0].tolist()]
    boxes = [[row[noisy:] for row in layer] for layer in predicted[1].tolist()]
    classes = None if classes is None else classes.tolist()
    layers = [naive_layer(z, b, targets, classes) for z, b in zip(logits, boxes)]
    real, pseudo = layers[-1][1]
    free = naive_layer(encoded[0].tolist(), encoded[1].tolist(), targets, None)
    expected = {}
    for name, (sums, _) in zip(("enc_", "d0.", "d1.", ""), (free, *layers), strict=True):
        expected[f"{name}loss_cls"] = 2 * sums[0] / max(real + pseudo, 1)
        expected[f"{name}loss_bbox"] = 5 * sums[1] / max(real, 1)
        expected[f"{name}loss_iou"] = 2 * sums[2] / max(real, 1)
    for layer, name in enumerate(("d0.", "d1.", "") if denoising is not None else ()):
        total = 0.0
        for image in range(len(targets.boxes)):
            for query in range(noisy):
                p = sigmoid(float(predicted[0][layer, image, query]))
                if not denoising.valid[image, query]:
                    continue
                if denoising.positive[image, query]:
                    weight = math.sqrt(float(denoising.weight[image, query]))
                    total -= weight * 0.25 * (1 - p) ** 2 * math.log(p)
                else:
                    total -= 0.75 * p**2 * math.log(1 - p)
        expected[f"{name}dn_loss_cls"] = 2 * total / (max(real, 1) * denoising.groups)
    return expected, (real, pseudo)


def random_boxes(*shape):
    return torch.rand(*shape, 4, dtype=torch.double) * 0.5 + 0.2


def make(labels, seed=0, noisy=0):
    torch.manual_seed(seed)
    images = len(labels)
    targets = Targets(
        [random_boxes(len(own)) for own in labels],
        [torch.tensor(own).long() for own in labels],
        [torch.rand(len(own)).double().where(torch.tensor(own) < 0, 1.0) for own in labels],
        torch.arange(WILDCARD),
    )
    total = noisy + QUERIES
    predicted = [torch.randn(LAYERS, images, total).double(), random_boxes(LAYERS, images, total)]
    encoded = [torch.randn(images, QUERIES).double(), random_boxes(images, QUERIES)]
    for given in (*predicted, *encoded):
        given.requires_grad_()
    classes = torch.randint(0, WILDCARD + 1, (images, QUERIES)).sort(dim=1).values
    denoising = None
    if noisy:
        denoising = DenoisingQueries(
            content=torch.zeros(images, noisy, 16),
            references=torch.zeros(images, noisy, 4),
            mask=torch.zeros(total, total, dtype=torch.bool),
            positive=torch.rand(images, noisy) < 0.5,
            valid=torch.rand(images, noisy) < 0.8,
            weight=torch.rand(images, noisy).double(),
            groups=3,
        )
    return predicted, encoded, targets, classes, denoising


CASES = {
    "mixed": ((0, 2, -1, 1), (-1, 0)),
    "all_pseudo": ((-1, -1), (-1, -1, -1)),
    "no_pseudo": ((0, 1), (2, 2, 1)),
    "an_empty_image": ((), (1, -1, 1)),
    "no_boxes": ((), ()),
    "more_boxes_than_queries": ((0, 1, 2, -1) * 3, (0,)),
}


@pytest.mark.parametrize("noisy", [0, 6])
@pytest.mark.parametrize("asked", [True, False], ids=["classes", "no_classes"])
@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_loops(case, asked, noisy):
    for seed in range(3):
        predicted, encoded, targets, classes, denoising = make(CASES[case], seed, noisy)
        classes = classes if asked else None
        found = head().loss(predicted, encoded, targets, classes, denoising, METAS)
        expected, (real, _) = naive_losses(predicted, encoded, targets, classes, denoising)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert value.item() == pytest.approx(expected[name], rel=1e-5, abs=1e-9), (name, seed)
        if case == "mixed":
            assert real
        if case in ("all_pseudo", "no_boxes"):
            of_boxes = [name for name in found if name.endswith(("bbox", "iou"))]
            assert real == 0 and all(found[name].item() == 0 for name in of_boxes)


def gradients(labels, classes=None, noisy=0):
    predicted, encoded, targets, chosen, denoising = make(labels, 0, noisy)
    found = head().loss(
        predicted, encoded, targets, chosen if classes is None else classes, denoising, METAS
    )
    given = (*predicted, *encoded)
    return found, torch.autograd.grad(sum(found.values()), given)


def test_pseudo_boxes_teach_objectness_and_no_box():
    found, (logits, boxes, first_logits, first) = gradients([(-1, -1)], torch.full((1, 8), 3))
    assert boxes.abs().max() == 0 and first.abs().max() == 0
    assert logits.abs().min() > 0 and first_logits.abs().min() > 0
    assert found["loss_bbox"] == found["enc_loss_iou"] == 0
    assert found["loss_cls"] > 0


def test_a_box_without_a_query_of_its_class_stays_unmatched():
    found, (_, boxes, _, first) = gradients([(1,)], torch.full((1, 8), 2))
    assert found["loss_bbox"] == 0 and boxes.abs().max() == 0
    assert found["enc_loss_bbox"] > 0 and first.abs().max() > 0  # the encoder knows no classes


def test_without_boxes_everything_still_has_a_gradient():
    found, each = gradients([(), ()], noisy=4)
    assert all(value.isfinite() for value in found.values())
    assert each[1].abs().max() == 0 and each[0].abs().max() > 0  # zeros, not None


def test_one_class_is_a_class_as_any_other():
    predicted, encoded, targets, classes, _ = make([(0, 0, -1)], 4)
    targets.sampled = torch.arange(1)
    classes = (classes > 1).long()  # 0, or the wildcard, 1
    found = head().loss(predicted, encoded, targets, classes, None, METAS)
    renamed = torch.where(classes == 1, WILDCARD, 0)
    expected, counts = naive_losses(predicted, encoded, targets, renamed)
    assert counts == (2, 1)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-5)


def test_weights_of_the_losses_multiply_them():
    predicted, encoded, targets, classes, denoising = make(CASES["mixed"], 0, 4)
    rest = (targets, classes, denoising, METAS)
    plain = head().loss(predicted, encoded, *rest)
    other = head(loss_weights=(1.0, 10.0, 6.0)).loss(predicted, encoded, *rest)
    for name, value in plain.items():
        factor = 0.5 if name.endswith("cls") else 2 if name.endswith("bbox") else 3
        torch.testing.assert_close(other[name], factor * value)


def test_the_order_of_images_and_boxes_changes_no_loss():
    predicted, encoded, targets, classes, denoising = make(CASES["mixed"], 1)
    found = head().loss(predicted, encoded, targets, classes, denoising, METAS)
    turned = Targets(
        *([each.flip(0) for each in reversed(lists)]
          for lists in (targets.boxes, targets.labels, targets.weights)),
        targets.sampled,
    )  # fmt: skip
    other = head().loss(
        [each.flip(1) for each in predicted],
        [each.flip(0) for each in encoded],
        turned,
        classes.flip(0),
        None,
        METAS,
    )
    for name, value in found.items():
        torch.testing.assert_close(other[name], value)


def test_layers_share_the_objectness_and_have_a_box_each():
    model = head()
    assert [type(each).__name__ for each in model.cls_branches] == ["Linear"] * 2
    assert len(model.reg_branches) == LAYERS + 1
    model.init_weights()
    model.double()
    hidden = torch.randn(LAYERS, 2, 5, 16).double()
    references = [torch.rand(2, 5, 4).double() * 0.8 + 0.1 for _ in range(LAYERS + 1)]
    logits, boxes = model(hidden, references)
    for layer in range(LAYERS):  # nothing is moved at the start, and few things are there
        torch.testing.assert_close(boxes[layer], references[layer])
    assert float(model.cls_branches[0].bias.detach()) == pytest.approx(-math.log(99), rel=1e-5)
    torch.nn.init.normal_(model.reg_branches[1][-1].weight)
    moved = model(hidden, references)[1]
    assert [not torch.equal(a, b) for a, b in zip(moved, boxes)] == [False, True, False]
    last = model(hidden, references, last=True)
    # one layer instead of all, which BLAS may add up in another order
    torch.testing.assert_close(last, (logits[-1:], moved[-1:]), rtol=0, atol=1e-14)


def naive_detections(boxes, scores, meta, cfg, rescale):
    """All pairs above the threshold, NMS class by class, the strongest."""
    height, width = meta["img_shape"]
    factor = meta["scale_factor"] if rescale else (1.0, 1.0)
    pixels = []
    for box in boxes.tolist():
        x0, y0, x1, y1 = corners(box)
        xs = [min(max(x * width, 0), width) / factor[0] for x in (x0, x1)]
        ys = [min(max(y * height, 0), height) / factor[1] for y in (y0, y1)]
        pixels.append((xs[0], ys[0], xs[1], ys[1]))

    def iou(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        both = max(width, 0) * max(height, 0)
        areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (a, b)]
        return both / (sum(areas) - both)

    found = []
    for label in range(scores.shape[1] - 1):
        kept = []
        pairs = [(float(score), box) for score, box in zip(scores[:, label], pixels)]
        for score, box in sorted(pairs, reverse=True):
            above = score > cfg["score_thr"]
            if above and all(iou(box, other) <= cfg["nms"]["iou_threshold"] for _, other in kept):
                kept.append((score, box))
        found += [(score, label, box) for score, box in kept]
    return sorted(found, reverse=True)[: cfg["max_per_img"]]


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize(("most", "threshold"), [(100, 0.001), (7, 0.001), (100, 0.4), (7, 0.0)])
def test_detections_are_those_of_loops(most, threshold, rescale):
    generator = torch.Generator().manual_seed(most)
    boxes = torch.rand(40, 4, generator=generator) * 0.6 + 0.3  # many overlap, some stand out
    scores = torch.rand(40, 6, generator=generator) ** 3
    scores[::7] = 0
    meta = dict(img_shape=(60, 90), scale_factor=(0.5, 1.5), img_path="a.png")
    cfg = checked_test_cfg(dict(max_per_img=most, score_thr=threshold))
    found = head(test_cfg=cfg).detections(boxes, scores, meta, rescale)
    expected = naive_detections(boxes, scores, meta, cfg, rescale)
    assert len(found) == len(expected) > 0 and (most == 100 or len(found) == most)
    assert found.labels.tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(found.scores, torch.tensor([score for score, *_ in expected]))
    torch.testing.assert_close(found.bboxes, torch.tensor([box for *_, box in expected]))


def test_without_nms_all_pairs_above_the_threshold_are_detections():
    boxes = torch.full((3, 4), 0.5)
    scores = torch.tensor([[0.3, 0.2, 0.1], [0.9, 0.0, 0.1], [0.4, 0.8, 0]])
    cfg = checked_test_cfg(dict(nms=None))
    found = head(test_cfg=cfg).detections(boxes, scores, dict(img_shape=(8, 8)), False)
    assert found.labels.tolist() == [0, 1, 0, 0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8, 0.4, 0.3, 0.2]))


def test_nothing_above_the_threshold_is_no_detection():
    cfg = checked_test_cfg(None)
    meta = dict(img_shape=(60, 90), scale_factor=(1.0, 1.0))
    found = head(test_cfg=cfg).detections(torch.rand(4, 4), torch.full((4, 3), 1e-3), meta, True)
    assert len(found) == 0 and found.bboxes.shape == (0, 4) and found.labels.dtype == torch.long


def test_boxes_of_zero_size_are_as_good_as_others():
    cfg = checked_test_cfg(None)
    meta = dict(img_shape=(60, 90), scale_factor=(1.0, 1.0))
    boxes = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [2.0, 2, 0.1, 0.1]])
    found = head(test_cfg=cfg).detections(boxes, torch.rand(3, 3) + 0.1, meta, True)
    assert found.bboxes.isfinite().all() and found.scores.isfinite().all()


def test_what_is_not_finite_is_named_by_its_image():
    model, meta = head(test_cfg=checked_test_cfg(None)), dict(img_shape=(9, 9), img_path="b.png")
    fine, broken = torch.rand(2, 4), torch.tensor([[0.1, float("nan"), 0, 0]] * 2)
    raises(r"scores of b\.png", model.detections, fine, broken, meta, False)
    raises(r"boxes of b\.png", model.detections, broken, fine, meta, False)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (dict(temprature=1.0), "test_cfg has no option 'temprature'; do you mean 'temperature'"),
        (dict(rcnn=dict()), "test_cfg has no option 'rcnn'; it has temperature, "),
        (dict(temperature=0), "test_cfg.temperature must be a positive number, got 0"),
        (dict(temperature=None), "test_cfg.temperature must be a positive number, got None"),
        (dict(temperature="100"), "test_cfg.temperature must be a positive number, got '100'"),
        (dict(target_class_factor=-3), "test_cfg.target_class_factor must be a positive"),
        (dict(temperature=float("nan")), "test_cfg.temperature must be a positive number"),
        (dict(score_thr=None), "test_cfg.score_thr must be a number below 1, .*, got None"),
        (dict(score_thr=5), "test_cfg.score_thr must be a number below 1, the highest .*, got 5"),
        (dict(score_thr=float("nan")), "test_cfg.score_thr must be a number below 1, .*, got nan"),
        (dict(temperature=True), "test_cfg.temperature must be a positive number, got True"),
        (dict(nms=dict(type="nms", iou_threshold=50)), "an IoU from 0 to 1, or None, got"),
        (
            dict(nms=dict(type="nms", iou_threshold=0.5, iou_thr=0.3)),
            "test_cfg.nms has 'iou_thr', which is no option of 'nms': besides iou_threshold it has",
        ),
        (dict(nms=dict(type="nms", iou_threshold=0.5, sigma=1)), "'sigma', .* no option of 'nms'"),
        (dict(max_per_img=1.5), "test_cfg.max_per_img must be a whole number, got 1.5"),
        (dict(max_per_img=None), "test_cfg.max_per_img must be a whole number, got None"),
        (dict(nms=0.5), r"test_cfg.nms must be as dict\(type='nms', .*\), .*, or None, got 0\.5"),
        (dict(nms=dict(type="nms")), "test_cfg.nms must be as dict.*iou_threshold"),
        (dict(nms=dict(type="nsm", iou_threshold=0.5)), "test_cfg.nms must be as .* 'nsm'"),
    ],
)
def test_bad_options_of_the_test_end_in_a_line(options, line):
    raises(line, checked_test_cfg, options)


def test_options_that_are_left_out_have_defaults():
    assert checked_test_cfg(None) == TEST_CFG
    assert checked_test_cfg(dict(temperature=50)) == {**TEST_CFG, "temperature": 50}
    soft = dict(nms=dict(type="soft_nms", iou_threshold=0.5, sigma=0.5), max_per_img=-1)
    assert checked_test_cfg(soft).nms == soft["nms"]


def test_options_of_training_are_refused():
    line = "train_cfg=.* is not read: .* loss_weights and cost_weights .*; remove it"
    raises(line, head, train_cfg=dict(assigner=dict(type="HungarianAssigner")))
    raises("two-stage", head, share_pred_layer=True)
    raises("two-stage", head, as_two_stage=False)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (dict(loss_weights=(2, 5)), r"loss_weights must be three numbers .*, got \(2, 5\)"),
        (dict(loss_weights=(2, 5, -2)), r"loss_weights must be three numbers from 0 on"),
        (dict(cost_weights=2.0), "cost_weights must be three numbers .*, got 2.0"),
        (dict(cost_weights=(2, 30, 2)), "cost_weights .* must stay below 99"),
        (dict(num_reg_fcs=-1), "num_reg_fcs must be a whole number from 0 on, got -1"),
    ],
)
def test_bad_options_end_in_a_line(options, line):
    raises(line, head, **options)


def test_boxes_begin_where_the_decoder_says():
    # a narrow box moves from 1/1000 of the photo, in every layer, as what denoising is taught
    model = head()
    edges = torch.tensor([0.0, 1e-5, 0.5, 1.0]).expand(1, 3, 4)
    layers = len(model.reg_branches) - 1
    for branch in model.reg_branches:
        torch.nn.init.zeros_(branch[-1].weight)
        torch.nn.init.zeros_(branch[-1].bias)
    _, boxes = model(torch.zeros(layers, 1, 3, model.embed_dims), [edges] * layers)
    expected = inverse_sigmoid(edges, eps=1e-3).sigmoid()
    torch.testing.assert_close(boxes, expected.expand(layers, -1, -1, -1))
    assert boxes.min() > 9e-4
