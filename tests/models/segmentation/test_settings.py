"""``test_cfg``: how many classes are at full size at once, and that prediction keeps to it."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

from mmclipdis.models.segmentation import samples as module
from mmclipdis.models.segmentation.catseg.views import CATSegTestSettings
from mmclipdis.models.segmentation.prediction import LabelRule, WindowScores
from mmclipdis.models.segmentation.settings import OpenVocabTestSettings, TestSettings
from mmclipdis.models.segmentation.windows import one_window

#: 10 queries on 25 x 40 pixels: a map in fp32 has 4 kB.
SCORES = WindowScores(torch.rand(1, 10, 5, 8), one_window((25, 40)))
KB = 1e-3  # in MB


@pytest.mark.parametrize(
    ("settings", "queries"),
    [
        (TestSettings(chunk_mb=4 * KB), 1),
        (TestSettings(chunk_mb=13 * KB), 3),
        (TestSettings(), 10),
        (CATSegTestSettings(chunk_mb=9 * KB), 2),
        (OpenVocabTestSettings(chunk_mb=9 * KB), 2),
        (OpenVocabTestSettings(chunk_mb=9 * KB, class_chunk=7), 7),
    ],
)
def test_as_many_queries_as_memory_allows_are_at_full_size(settings: Any, queries: int) -> None:
    assert settings.queries_at_once(SCORES, (25, 40)) == queries
    rule = LabelRule(torch.arange(10), 10)
    with mock.patch.object(module, "predict_labels", wraps=module.predict_labels) as labels:
        module.predict_samples(
            torch.zeros(1, 3, 25, 40), None, lambda images: [SCORES], rule, settings
        )
    assert labels.call_args.kwargs == {"class_chunk": queries, "refine": None}
