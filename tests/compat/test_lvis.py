"""The package lvis on today's NumPy; what it computes is tested with LVISMetric."""

from __future__ import annotations

import logging
import sys

import numpy
import pytest

import mmclipdis  # noqa: F401  (installs it)
from mmclipdis.compat.lvis import install_lvis


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
