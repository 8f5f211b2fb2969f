"""What people call: free-text inferencers; :mod:`run` and :mod:`cli` are behind the tools."""

from mmclipdis.apis.segment import OpenVocabSegInferencer, Segmentation, segment

__all__ = ["OpenVocabSegInferencer", "Segmentation", "segment"]
