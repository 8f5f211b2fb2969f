"""Stock mmdet models work on the stand-in ops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import mmclipdis  # noqa: F401  (installs the stand-in)

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"


@pytest.fixture
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-stock-mmdet", scope_name="mmdet")


def faster_rcnn() -> Any:
    from mmdet.registry import MODELS

    config = Config.fromfile(CONFIGS / "_base_" / "models" / "faster-rcnn_r50_fpn.py").model
    config.backbone.update(depth=18, init_cfg=None)
    config.neck.update(in_channels=[64, 128, 256, 512], out_channels=16)
    config.rpn_head.update(in_channels=16, feat_channels=16)
    config.roi_head.bbox_roi_extractor.out_channels = 16
    config.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    config.test_cfg.rcnn.score_thr = 0.0
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model


def batch() -> dict[str, Any]:
    from mmdet.structures import DetDataSample

    images, samples = [], []
    for index in range(2):
        shape = {"img_shape": (64, 80), "ori_shape": (64, 80), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo={**shape, "img_id": index})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0], [30.0, 20.0, 70.0, 60.0]]),
            labels=torch.tensor([0, 2]),
        )
        images.append(torch.randint(0, 255, (3, 64, 80), dtype=torch.uint8))
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}


def test_stock_faster_rcnn_trains_a_step_and_predicts(mmdet_scope: None) -> None:
    model = faster_rcnn()
    weight = model.roi_head.bbox_head.fc_cls.weight
    before = weight.detach().clone()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    model.train()
    logs = model.train_step(batch(), optimizer)
    values = {name: float(value.detach()) for name, value in logs.items() if "loss" in name}
    assert {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss"} <= values.keys()
    assert all(0 <= value < 100 for value in values.values())
    assert not torch.equal(before, weight)
    # the head's loss reaches the backbone only through RoIAlign's backward
    losses = model(**model.data_preprocessor(batch(), training=True), mode="loss")
    deep = model.backbone.layer4[0].conv1.weight
    assert float(torch.autograd.grad(losses["loss_cls"], deep)[0].abs().max()) > 0

    model.eval()
    with torch.no_grad():
        results = model.test_step(batch())
    assert len(results) == 2
    for result in results:
        boxes = result.pred_instances.bboxes
        assert 0 < len(boxes) <= 100
        assert bool((boxes >= 0).all())
        assert float(boxes[:, 0::2].max()) <= 80 and float(boxes[:, 1::2].max()) <= 64
        scores = result.pred_instances.scores
        assert torch.equal(scores, scores.sort(descending=True).values)
