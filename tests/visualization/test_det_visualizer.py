"""Boxes of unknown class are drawn as such, by mmdet's tools too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

import mmclipdis  # noqa: F401  (registers)


@pytest.mark.parametrize("kind", ["DetLocalVisualizer", "DetectionVisualizer"])
@pytest.mark.parametrize(
    ("labels", "names"), [([1, -1], ["kite", "unknown"]), ([-1, -1], ["unknown"] * 2)]
)
@pytest.mark.parametrize("palette", [None, [(255, 0, 0), (0, 255, 0), (0, 0, 255)]])
def test_pseudo_boxes_are_not_of_the_last_class(
    kind: str, labels: list[int], names: list[str], palette: Any
) -> None:
    drawn: list[str] = []
    visualizer = VISUALIZERS.build({"type": kind, "name": f"{kind}{labels}{palette}"})
    visualizer.dataset_meta = {"classes": ("apple", "kite"), "palette": palette}
    plain = visualizer.draw_texts

    def draw_texts(texts: str, *args: Any, **options: Any) -> Any:
        drawn.append(texts)
        return plain(texts, *args, **options)

    visualizer.draw_texts = draw_texts
    boxes = torch.tensor([[2.0, 2, 20, 20], [10.0, 10, 40, 30]])
    instances = InstanceData(bboxes=boxes, labels=torch.tensor(labels), weights=torch.ones(2))
    sample = DetDataSample(gt_instances=instances)
    visualizer.add_datasample("a", np.zeros((50, 60, 3), np.uint8), sample, draw_pred=False)
    assert drawn == names
    assert sample.gt_instances.labels.tolist() == labels
