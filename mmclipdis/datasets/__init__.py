"""Data sets and transforms that mmseg lacks; importing it registers them, if mmseg is there."""

from mmclipdis.compat.optional import HAS_MMSEG, absent

__all__ = [
    "COCOObjectDataset",
    "LoadReadableAnnotations",
    "LoadReadableImage",
    "PascalVOC20Dataset",
    "ResizeShortestEdgePIL",
    "ShapeScenesDataset",
]

if HAS_MMSEG:
    from mmclipdis.datasets.benchmarks import COCOObjectDataset, PascalVOC20Dataset
    from mmclipdis.datasets.catseg_transforms import ResizeShortestEdgePIL
    from mmclipdis.datasets.loading import LoadReadableAnnotations, LoadReadableImage
    from mmclipdis.datasets.shapes import ShapeScenesDataset
else:
    __getattr__ = absent(__name__, __all__)
