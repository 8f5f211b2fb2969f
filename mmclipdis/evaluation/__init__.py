"""Metrics; importing it registers them, those of segmentation and detection if mmseg, mmdet are."""

from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG, absent
from mmclipdis.evaluation.multi_label_metric import MultiLabelMetric
from mmclipdis.evaluation.region_accuracy import RegionAccuracy

__all__ = [
    "DetClassReport",
    "MultiLabelMetric",
    "OpenVocabIoUMetric",
    "RegionAccuracy",
    "SegClassReport",
]

if HAS_MMSEG:
    from mmclipdis.evaluation.open_vocab_iou import OpenVocabIoUMetric
    from mmclipdis.evaluation.seg_class_report import SegClassReport
if HAS_MMDET:
    from mmclipdis.evaluation.det_class_report import DetClassReport
if not (HAS_MMSEG and HAS_MMDET):
    __getattr__ = absent(__name__, __all__, ("DetClassReport",))
