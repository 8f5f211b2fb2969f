"""Metrics that the mm stack lacks; importing it registers them."""

from mmclipdis.evaluation.open_vocab_iou import OpenVocabIoUMetric

__all__ = ["OpenVocabIoUMetric"]
