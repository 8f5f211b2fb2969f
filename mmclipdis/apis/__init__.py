"""What people call: inferencers of any words; :mod:`run` and :mod:`cli` are behind the tools."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG, absent

if TYPE_CHECKING:
    from mmclipdis.apis.inferencers.detect import OpenVocabDetInferencer
    from mmclipdis.apis.inferencers.functions import detect, segment, tag
    from mmclipdis.apis.inferencers.photos import Failure
    from mmclipdis.apis.inferencers.segment import OpenVocabSegInferencer
    from mmclipdis.apis.inferencers.tag import OpenVocabTagger
    from mmclipdis.apis.results import Detections, HeatMap, Segmentation, Tags

__all__ = [
    "Detections",
    "Failure",
    "HeatMap",
    "OpenVocabDetInferencer",
    "OpenVocabSegInferencer",
    "OpenVocabTagger",
    "Segmentation",
    "Tags",
    "detect",
    "segment",
    "tag",
]

#: Each is imported when it is asked for, and with it the packages of its task alone.
_PLACES = {
    "Detections": "results",
    "HeatMap": "results",
    "Segmentation": "results",
    "Tags": "results",
    "Failure": "inferencers.photos",
    "OpenVocabDetInferencer": "inferencers.detect",
    "OpenVocabSegInferencer": "inferencers.segment",
    "OpenVocabTagger": "inferencers.tag",
    "detect": "inferencers.functions",
    "segment": "inferencers.functions",
    "tag": "inferencers.functions",
}
#: The inferencer of each task, an attribute of this package.
INFERENCERS = {
    "segment": "OpenVocabSegInferencer",
    "detect": "OpenVocabDetInferencer",
    "tag": "OpenVocabTagger",
}
_OF_MMSEG = () if HAS_MMSEG else ("OpenVocabSegInferencer", "segment")
_OF_MMDET = () if HAS_MMDET else ("OpenVocabDetInferencer", "detect")
_absent = absent(__name__, _OF_MMSEG, detection=_OF_MMDET)


def __getattr__(name: str) -> Any:
    if name not in _PLACES or name in (*_OF_MMSEG, *_OF_MMDET):
        _absent(name)
    found = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found
