"""tools/benchmarks/infoclip.py measures both models, each pass by itself."""

from __future__ import annotations

import importlib
from itertools import count

import pytest

from tests.models.segmentation.infoclip.tiny import catseg
from tests.tools.test_benchmarks import FOLDER


def test_the_passes_are_timed_apart_and_the_parameters_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    bench = importlib.import_module("infoclip")
    models = bench.build(catseg(), 4, "cpu")
    ticks = count()
    rows, claims = bench.step_rows(models, bench.crops(2, 48, 4, "cpu"), 2, lambda: next(ticks))
    names = [row["name"] for row in rows]
    assert names == [
        *(
            f"training step, batch 2, {model}, {part}"
            for model in ("CAT-Seg", "InfoCLIP")
            for part in ("forward", "backward")
        ),
        "InfoCLIP, added parameters",
    ]
    assert [row["metrics"]["share_of_catseg"] for row in rows[:4]] == [1.0] * 4
    assert rows[-1]["metrics"]["count"] == 2 * (12 * 12 + 12) + 2 * 2 * 12
    assert claims[0].measured == pytest.approx(1.0)
