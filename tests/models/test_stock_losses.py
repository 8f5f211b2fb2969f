"""Our losses named in heads of mmseg and mmdet: they work there, or the head is not built."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS as DETECTION
from mmengine.registry import MODELS as ROOT
from mmengine.registry import init_default_scope
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS as SEGMENTATION

import mmclipdis  # noqa: F401
from tests.faults.endings import raises
from tests.models.stock import CLASSES, place, step, stock_batch, stock_config

FCN = "fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py"
FASTER = "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
RETINA = "retinanet/retinanet_r50_fpn_1x_coco.py"
DETR = "detr/detr_r50_8xb2-150e_coco.py"
PLAIN = dict(type="CrossEntropyLoss", use_sigmoid=False)
OURS = dict(type="NovelMaskedCrossEntropyLoss", use_sigmoid=False)
K = CLASSES["mmdet"]


def model_with(library: str, path: str, where: str, loss: Any) -> Any:
    init_default_scope(library)
    config = stock_config(library, path).model
    place(config, where, loss)
    registry = SEGMENTATION if library == "mmseg" else DETECTION
    torch.manual_seed(0)
    model = registry.build(config)
    for name, parameter in model.named_parameters():  # those of both are the same
        torch.manual_seed(len(name))
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("as_list", [False, True])
def test_gathered_bce_is_mmsegs_own_in_a_decode_head(as_list: bool) -> None:
    ours = dict(type="GatheredBCELoss", ignore_as_negative=False, loss_weight=0.5)
    theirs = dict(type="CrossEntropyLoss", use_sigmoid=True, avg_non_ignore=True, loss_weight=0.5)
    found = []
    for loss in (ours, {**theirs, "loss_name": "loss_bce"}):
        losses = [loss, dict(PLAIN, loss_weight=0.1)] if as_list else loss
        found.append(step(model_with("mmseg", FCN, SEG, losses), "mmseg"))
    assert "decode.loss_bce" in found[0] and found[0].keys() == found[1].keys()
    for name, value in found[1].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-5, atol=1e-6)


def test_hard_pixels_are_those_of_the_loss() -> None:
    """mmseg's sampler chooses them by reduction_override='none' and hands over their weights."""
    init_default_scope("mmseg")
    head = stock_config("mmseg", FCN).model.decode_head
    head.update(in_index=0, in_channels=4, num_convs=0, channels=4, concat_input=False)
    place(head, "loss_decode", dict(type="GatheredBCELoss", ignore_as_negative=False))
    head.sampler = dict(type="OHEMPixelSampler", min_kept=10)  # of each image
    torch.manual_seed(0)
    built = SEGMENTATION.build(head)
    logits = torch.randn(2, CLASSES["mmseg"], 64, 64)
    samples = stock_batch("mmseg")["data_samples"]
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples])
    found = built.loss_by_feat(logits, samples)["loss_bce"]
    loss = built.loss_decode(logits, labels, reduction_override="none")
    hardest = loss[labels != 255].topk(20).values
    torch.testing.assert_close(found, hardest.sum() / (labels != 255).sum())


@pytest.mark.parametrize("override", [None, "sum", "none"])
@pytest.mark.parametrize("avg_factor", [None, 7.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("negative", [False, True])
def test_gathered_bce_equals_a_loop(
    negative: bool, weighted: bool, avg_factor: float | None, override: Any
) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 5))
    labels[0, :2] = 9
    weight = torch.rand(2, 4, 5, dtype=torch.float64) if weighted else None
    loss = ROOT.build(dict(type="GatheredBCELoss", ignore_as_negative=negative, class_chunk=2))

    def call() -> torch.Tensor:
        return loss(logits, labels, weight, avg_factor, override, ignore_index=9)

    if avg_factor is not None and override is not None:
        raises("avg_factor divides a mean", call)
        return
    pixels = torch.zeros(2, 4, 5, dtype=torch.float64)
    count = 0
    for image in range(2):
        for row in range(4):
            for column in range(5):
                label = int(labels[image, row, column])
                if label == 9 and not negative:
                    continue
                count += 3
                for number in range(3):
                    z = logits[image, number, row, column]
                    term = -F.logsigmoid(z if label == number else -z)
                    factor = 1.0 if weight is None else weight[image, row, column]
                    pixels[image, row, column] += factor * term
    expected = {"none": pixels / 3, "sum": pixels.sum()}.get(
        override, pixels.sum() / (avg_factor or count)
    )
    torch.testing.assert_close(call(), expected)
    one, two = (torch.autograd.grad(x.sum(), logits)[0] for x in (call(), expected))
    torch.testing.assert_close(one, two)


def test_gathered_bce_takes_mmsegs_factors() -> None:
    """As mmseg's own: the factor divides the sum over classes and pixels."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    own = CrossEntropyLoss(use_sigmoid=True)
    loss = ROOT.build(dict(type="GatheredBCELoss"))
    for options in ({}, {"avg_factor": 3.0}, {"reduction_override": "sum"}):
        torch.testing.assert_close(
            loss(logits, labels, ignore_index=255, **options),
            own(logits, labels, ignore_index=255, **options),
        )


WEIGHTS = [1.0] * (K + 1)


@pytest.mark.parametrize(
    ("path", "where", "weights"),
    [
        (FASTER, "roi_head.bbox_head.loss_cls", WEIGHTS),
        (FASTER, "rpn_head.loss_cls", [1.0, 1.0]),
        (RETINA, "bbox_head.loss_cls", WEIGHTS),
        (DETR, "bbox_head.loss_cls", WEIGHTS),
    ],
)
def test_without_novel_classes_the_loss_of_fvit_is_mmdets_own(
    path: str, where: str, weights: list[float]
) -> None:
    names = [f"thing {i}" for i in range(len(weights) - 1)]
    ours = dict(OURS, classes=names, novel_classes=(), bg_weight=1.0)
    one, two = (
        step(model_with("mmdet", path, where, copy.deepcopy(loss)), "mmdet")
        for loss in (ours, PLAIN)
    )
    assert one.keys() == two.keys()
    for name, value in two.items():
        torch.testing.assert_close(one[name], value, rtol=1e-4, atol=1e-5)


def test_novel_classes_are_left_out_in_a_stock_box_head() -> None:
    loss = dict(OURS, classes=["a", "b", "c"], novel_classes=["b"])
    model = model_with("mmdet", FASTER, "roi_head.bbox_head.loss_cls", loss)
    step(model, "mmdet")
    gradient = model.roi_head.bbox_head.fc_cls.weight.grad
    assert gradient[1].eq(0).all() and gradient[[0, 2, 3]].ne(0).any(dim=1).all()


def test_the_weight_of_the_background_of_detr_is_taken_over() -> None:
    """DETRHead makes class_weight of it; a config in which only the type was changed works."""
    stock = stock_config("mmdet", DETR).model.bbox_head.loss_cls
    assert stock.bg_cls_weight == 0.1
    ours = {**stock, "type": "NovelMaskedCrossEntropyLoss"}
    model = model_with("mmdet", DETR, "bbox_head.loss_cls", ours)
    assert model.bbox_head.loss_cls.class_weight.tolist() == pytest.approx([1, 1, 1, 0.1])
    assert all(value.isfinite() for value in step(model, "mmdet").values())


SEG, BOX = "decode_head.loss_decode", "roi_head.bbox_head.loss_cls"
REFUSED = [
    ("mmseg", FCN, SEG, dict(type="AsymmetricLoss"), r"DCLIP.asl and mmpretrain's MultiLabelCls"),
    ("mmseg", FCN, SEG, [dict(type="AsymmetricLoss"), PLAIN], r"AsymmetricLoss .* FCNHead"),
    ("mmseg", FCN, "auxiliary_head.loss_decode", dict(type="MFILoss"), r"it is for DCLIP.mfi"),
    ("mmseg", FCN, SEG, dict(type="ContentLoss"), r"it is for DeCLIP.content_loss"),
    ("mmseg", FCN, SEG, dict(type="ContextCorrelationLoss"), r"for DeCLIP.context_loss"),
    ("mmseg", FCN, SEG, OURS, r"which mmseg calls with class scores .* box and dense heads"),
    ("mmseg", FCN, SEG, dict(type="GatheredBCELoss", use_sigmoid=False), "is a sigmoid loss"),
    ("mmdet", FASTER, BOX, dict(type="AsymmetricLoss"), "does not fit Shared2FCBBoxHead, which"),
    ("mmdet", FASTER, "rpn_head.loss_cls", dict(type="MFILoss"), "does not fit RPNHead"),
    ("mmdet", RETINA, "bbox_head.loss_cls", dict(type="GatheredBCELoss"), "not fit RetinaHead"),
    ("mmdet", DETR, "bbox_head.loss_cls", dict(type="ContentLoss"), "not fit DETRHead"),
    ("mmdet", FASTER, BOX, OURS, "does not say which classes are novel: give classes"),
    ("mmdet", FASTER, BOX, dict(OURS, class_weight=[1.0] * 9), "has 3 classes and not 8"),
    ("mmdet", RETINA, "bbox_head.loss_cls", dict(OURS, use_sigmoid=True), "is a softmax over"),
]


@pytest.mark.parametrize(("library", "path", "where", "loss", "line"), REFUSED)
def test_a_loss_that_does_not_fit_is_refused_when_the_head_is_built(
    library: str, path: str, where: str, loss: Any, line: str
) -> None:
    message = raises(line, model_with, library, path, where, loss)
    assert "it is for" in message or "use_sigmoid" in message


@pytest.mark.parametrize(
    ("head", "where"),
    [
        (dict(type="CenterNetHead", feat_channels=4), "loss_center_heatmap"),
        (dict(type="CornerHead"), "loss_heatmap"),
        *[
            (dict(type=kind), "loss_cls")
            for kind in ("FreeAnchorRetinaHead", "GFLHead", "RTMDetHead", "VFNetHead", "YOLOXHead")
        ],
    ],
    ids=lambda value: value if isinstance(value, str) else value["type"],
)
def test_dense_heads_with_other_targets_are_refused(head: dict[str, Any], where: str) -> None:
    init_default_scope("mmdet")
    loss = dict(OURS, class_weight=[1.0] * (K + 1))
    config = dict(head, num_classes=K, in_channels=4, **{where: loss})
    message = f"fit {head['type']}, which does not call it with scores and numbers of classes"
    raises(message, DETECTION.build, config)


@pytest.mark.parametrize("kind", ["GatheredBCELoss", "NovelMaskedCrossEntropyLoss"])
def test_a_reduction_is_checked_before_the_first_step(kind: str) -> None:
    raises(
        "must be one of mean, sum, none, got 'avg'", ROOT.build, dict(type=kind, reduction="avg")
    )


def test_a_head_of_one_channel_is_refused() -> None:
    init_default_scope("mmseg")
    head = stock_config("mmseg", FCN).model.decode_head
    head.update(num_classes=2, out_channels=1, threshold=0.3)
    head.loss_decode = dict(type="GatheredBCELoss")
    raises("does not fit FCNHead, which has one channel for two classes", SEGMENTATION.build, head)


@pytest.mark.parametrize("kind", ["AsymmetricLoss", "MFILoss", "ContentLoss", "GatheredBCELoss"])
@pytest.mark.parametrize("registry", [ROOT, SEGMENTATION, DETECTION])
def test_whoever_builds_a_loss_by_hand_calls_it_as_it_wants(kind: str, registry: Any) -> None:
    assert registry.build(dict(type=kind)) is not None
