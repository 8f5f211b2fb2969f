"""The RPN of F-ViT: norms as the configs say, and proposals in fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("mmdet")

from mmengine.config import ConfigDict
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from mmengine.utils.dl_utils.parrots_wrapper import SyncBatchNorm
from torch import Tensor

from tests.models.detection.fvit import tiny as tiny_fvit

TEST = ConfigDict(
    nms_pre=50, max_per_img=20, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
)


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-rpn-head", scope_name="mmdet")


def build(kind: str = "FViTRPNHead", **options: Any) -> Any:
    torch.manual_seed(0)
    cfg = {**tiny_fvit.rpn_head(), "type": kind, "test_cfg": TEST, **options}
    head = ROOT.build({**cfg, "type": f"mmdet.{kind}"})
    head.init_weights()
    return head


@pytest.mark.parametrize("convs", [1, 2])
def test_without_norm_it_is_the_stock_head(convs: int) -> None:
    head, stock = build(num_convs=convs), build("RPNHead", num_convs=convs)
    head.load_state_dict(stock.state_dict())
    x = torch.randn(1, 16, 8, 8)
    for one, other in zip(head.forward_single(x), stock.forward_single(x)):
        assert torch.equal(one, other)


@pytest.mark.parametrize("convs", [1, 2])
def test_convolutions_with_norm(convs: int) -> None:
    head = build(norm_cfg=dict(type="BN"), num_convs=convs).train()
    x = torch.randn(2, 16, 8, 8)
    expected = x
    for block in head.rpn_conv:
        assert block.conv.bias is None
        expected = F.conv2d(expected, block.conv.weight, padding=1)
        mean = expected.mean((0, 2, 3), keepdim=True)
        var = expected.var((0, 2, 3), unbiased=False, keepdim=True)
        expected = ((expected - mean) / (var + block.bn.eps).sqrt()).clamp(min=0)
    assert len(head.rpn_conv) == convs
    scores, deltas = head.forward_single(x)
    torch.testing.assert_close(scores, head.rpn_cls(expected))
    torch.testing.assert_close(deltas, head.rpn_reg(expected))
    torch.testing.assert_close(head.rpn_conv[0].conv.weight.std().item(), 0.01, rtol=0.1, atol=0)


def test_published_layers_and_their_parameters() -> None:
    sync = build(norm_cfg=dict(type="SyncBN"), in_channels=256, feat_channels=256)
    assert [type(block.bn) for block in sync.rpn_conv] == [SyncBatchNorm] * 2
    convs = sum(p.numel() for p in sync.rpn_conv.parameters())
    assert convs == 2 * (256 * 256 * 9 + 2 * 256)


def proposals(head: Any, scores: list[Tensor], deltas: list[Tensor]) -> Any:
    meta = dict(img_shape=(64, 64), scale_factor=(1.0, 1.0))
    return head.predict_by_feat(scores, deltas, batch_img_metas=[meta], cfg=TEST)[0]


def test_proposals_of_half_precision_are_made_in_fp32() -> None:
    torch.manual_seed(1)
    sizes = [64 // stride for stride in (2, 4, 8, 16, 32)]
    # Logits that differ by less than bf16's sigmoid tells apart, around a confident score.
    scores = [(5 + 0.3 * torch.randn(1, 3, n, n)).bfloat16() for n in sizes]
    deltas = [(0.3 * torch.randn(1, 12, n, n)).bfloat16() for n in sizes]
    exact = proposals(
        build("RPNHead"), [one.float() for one in scores], [one.float() for one in deltas]
    )
    found = proposals(build(), scores, deltas)
    assert found.bboxes.dtype == found.scores.dtype == torch.float32
    assert torch.equal(found.scores, exact.scores)
    assert torch.equal(found.bboxes, exact.bboxes)
    stock = proposals(build("RPNHead"), scores, deltas)  # it rounds the scores to few values
    assert len(stock.scores.unique()) < len(found.scores.unique())
