"""The package ``lvis`` on today's NumPy, for mmdet's ``LVISMetric``."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy

from mmclipdis.compat.optional import HAS_MMDET


class NumpyWithFloat(ModuleType):
    """NumPy as ``lvis`` 0.5.3 knows it: with ``float``, the name of Python's own type."""

    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)


class Sparse(dict[int, Any]):
    """A list that is None almost everywhere, by index."""

    def __missing__(self, key: int) -> None:
        return None


def sparse(evaluate: Callable[[Any], None]) -> Callable[[Any], None]:
    """``LVISEval.evaluate``, which looks only at pairs of image and class that hold anything.

    The original makes entries for all 24 million pairs of LVIS's validation set, most of them
    empty, in three dicts and a list of four times that length. What it computes is the same.
    """

    @functools.wraps(evaluate)
    def sparse_evaluate(self: Any) -> None:
        params = self.params
        if not params.use_cats:
            evaluate(self)
            return
        params.img_ids = [int(i) for i in numpy.unique(params.img_ids)]
        self._prepare()
        pairs = sorted(set(self._gts) | set(self._dts))
        self.ious = {pair: self.compute_iou(*pair) for pair in pairs}
        images = {image: index for index, image in enumerate(params.img_ids)}
        classes = {category: index for index, category in enumerate(params.cat_ids)}
        self.eval_imgs = Sparse()
        for image, category in pairs:
            for area, bounds in enumerate(params.area_rng):
                row = classes[category] * len(params.area_rng) + area
                found = self.evaluate_img(image, category, bounds)
                self.eval_imgs[row * len(images) + images[image]] = found

    return sparse_evaluate


def install_lvis() -> None:
    """Let ``lvis`` evaluate; does nothing without it, or without mmdet, which alone calls it.

    NumPy 1.24 took ``numpy.float`` away. Only ``lvis`` is shown a NumPy that has it. Its import
    also sets up the root logger, of which the handlers and the level are put back. Its evaluation
    is made to fit into memory (:func:`sparse`).
    """
    if not HAS_MMDET or find_spec("lvis") is None:
        return
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        module = importlib.import_module("lvis.eval")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    if not hasattr(module.np, "float"):
        vars(module)["np"] = NumpyWithFloat("numpy")
    if not hasattr(module.LVISEval.evaluate, "__wrapped__"):
        module.LVISEval.evaluate = sparse(module.LVISEval.evaluate)
