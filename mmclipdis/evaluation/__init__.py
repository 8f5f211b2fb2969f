"""Metrics that mmseg lacks; importing it registers them, if mmseg is there."""

from mmclipdis.compat.optional import HAS_MMSEG, absent

__all__ = ["OpenVocabIoUMetric"]

if HAS_MMSEG:
    from mmclipdis.evaluation.open_vocab_iou import OpenVocabIoUMetric
else:
    __getattr__ = absent(__name__, __all__)
