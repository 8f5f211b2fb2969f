"""What the inferencers return: one family of results, the same for photos of all three tasks."""

from mmclipdis.apis.results.base import Result, to_coco, to_dataframe
from mmclipdis.apis.results.detections import Detections
from mmclipdis.apis.results.heatmap import HeatMap
from mmclipdis.apis.results.segmentation import Segmentation
from mmclipdis.apis.results.tags import Tags

__all__ = [
    "Detections",
    "HeatMap",
    "Result",
    "Segmentation",
    "Tags",
    "to_coco",
    "to_dataframe",
]
