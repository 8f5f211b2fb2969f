"""What people call: free-text inferencers; :mod:`run` and :mod:`cli` are behind the tools."""

from mmclipdis.compat.optional import HAS_MMSEG, absent

__all__ = ["OpenVocabSegInferencer", "Segmentation", "segment"]

if HAS_MMSEG:
    from mmclipdis.apis.segment import OpenVocabSegInferencer, Segmentation, segment
else:
    __getattr__ = absent(__name__, __all__)
