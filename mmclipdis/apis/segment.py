"""Older place of the segmentor's inferencer; what is here lives in ``mmclipdis.apis.inferencers``.

``mmclipdis.apis.segment`` is a function and, once somebody imports from this file, this module:
hence it can be called like the function.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from mmclipdis.apis.inferencers.building import build_model
from mmclipdis.apis.inferencers.functions import segment
from mmclipdis.apis.inferencers.photos import Photo, read_photo
from mmclipdis.apis.inferencers.segment import OpenVocabSegInferencer
from mmclipdis.apis.inferencers.words import Words as Names
from mmclipdis.apis.results.segmentation import Segmentation

__all__ = [
    "Names",
    "OpenVocabSegInferencer",
    "Photo",
    "Segmentation",
    "build_model",
    "read_photo",
    "segment",
]


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return segment(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
