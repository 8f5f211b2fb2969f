"""The package lvis on today's NumPy; what it computes is tested with LVISMetric."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy
import pytest

import mmclipdis  # noqa: F401  (installs it)
from mmclipdis.compat.lvis import install_lvis
from tests.datasets.detection.files import lvis, save


def test_only_lvis_sees_the_names_that_numpy_gave_up() -> None:
    import lvis.eval

    assert lvis.eval.np.float is float
    assert lvis.eval.np.cumsum is numpy.cumsum
    assert not hasattr(numpy, "float")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lvis.eval.np.no_such_name


def test_its_import_leaves_the_root_logger_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lvis"]:
        monkeypatch.delitem(sys.modules, name)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.ERROR)
    install_lvis()
    assert "lvis.eval" in sys.modules
    assert root.handlers == [] and root.level == logging.ERROR


def test_evaluating_filled_pairs_alone_changes_nothing_but_the_memory(tmp_path: Path) -> None:
    from lvis.eval import LVISEval

    truth = str(save(tmp_path / "lvis.json", lvis()))
    rng = numpy.random.default_rng(0)
    probe = LVISEval(truth, _boxes(rng, [1], [1], 1), "bbox").params
    assert len(probe.img_ids) > 2 and len(probe.cat_ids) > 2
    boxes = _boxes(rng, probe.img_ids, probe.cat_ids, 60)
    boxes += [
        dict(image_id=a["image_id"], category_id=a["category_id"], bbox=a["bbox"], score=0.5)
        for a in lvis()["annotations"]
    ]
    sparse, full = (LVISEval(truth, boxes, "bbox") for _ in range(2))
    sparse.evaluate()
    LVISEval.evaluate.__wrapped__(full)
    filled = [pair for pair, ious in full.ious.items() if full._gts[pair] or full._dts[pair]]
    assert sorted(sparse.ious) == sorted(filled)
    assert len(filled) < len(full.ious)  # there are empty pairs
    assert all(found is not None for found in sparse.eval_imgs.values())
    for judge in (sparse, full):
        judge.accumulate()
        judge.summarize()
    assert sparse.results == full.results and 0 < full.results["AP"] < 1
    for name in ("precision", "recall"):
        numpy.testing.assert_array_equal(sparse.eval[name], full.eval[name])


def test_without_classes_all_images_are_looked_at_as_before(tmp_path: Path) -> None:
    from lvis.eval import LVISEval

    truth = str(save(tmp_path / "lvis.json", lvis()))
    judges = [
        LVISEval(truth, _boxes(numpy.random.default_rng(0), [1, 2, 3], [1, 2, 3], 9), "bbox")
        for _ in range(2)
    ]
    for judge, evaluate in zip(judges, (LVISEval.evaluate, LVISEval.evaluate.__wrapped__)):
        judge.params.use_cats = 0  # class-agnostic, an option of the package
        evaluate(judge)
    found = [judge.ious for judge in judges]
    assert list(found[0]) == list(found[1]) == [(image, -1) for image in judges[0].params.img_ids]
    for pair, ious in found[0].items():
        numpy.testing.assert_array_equal(ious, found[1][pair])


def _boxes(rng, images, classes, count):
    return [
        dict(
            image_id=int(rng.choice(images)),
            category_id=int(rng.choice(classes)),
            bbox=[*rng.uniform(0, 50, 2).tolist(), *rng.uniform(5, 40, 2).tolist()],
            score=float(rng.random()),
        )
        for _ in range(count)
    ]
