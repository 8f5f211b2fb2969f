"""Metrics; importing it registers them, those for segmentation if mmseg is there."""

from mmclipdis.compat.optional import HAS_MMSEG, absent
from mmclipdis.evaluation.multi_label_metric import MultiLabelMetric
from mmclipdis.evaluation.region_accuracy import RegionAccuracy

__all__ = ["MultiLabelMetric", "OpenVocabIoUMetric", "RegionAccuracy"]

if HAS_MMSEG:
    from mmclipdis.evaluation.open_vocab_iou import OpenVocabIoUMetric
else:
    __getattr__ = absent(__name__, __all__)
