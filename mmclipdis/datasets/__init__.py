"""Data sets and transforms that the mm stack lacks; importing it registers them."""

from mmclipdis.datasets.benchmarks import COCOObjectDataset, PascalVOC20Dataset
from mmclipdis.datasets.catseg_transforms import ResizeShortestEdgePIL
from mmclipdis.datasets.loading import LoadReadableAnnotations, LoadReadableImage
from mmclipdis.datasets.shapes import ShapeScenesDataset

__all__ = [
    "COCOObjectDataset",
    "LoadReadableAnnotations",
    "LoadReadableImage",
    "PascalVOC20Dataset",
    "ResizeShortestEdgePIL",
    "ShapeScenesDataset",
]
