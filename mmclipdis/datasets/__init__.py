"""Data sets and transforms; importing it registers them.

Those of segmentation are there if mmseg is, those of detection if mmdet is.
"""

from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG, absent
from mmclipdis.datasets.cached_tokens import CachedTokens
from mmclipdis.datasets.distill_images import DistillImageDataset
from mmclipdis.datasets.distill_transforms import DistillViews, LoadPILImage, PackDistillInputs
from mmclipdis.datasets.grid_crops import GridCrops
from mmclipdis.datasets.loading import LoadReadableImage
from mmclipdis.datasets.multi_label import CocoMultiLabelDataset
from mmclipdis.datasets.multi_label_transforms import (
    CutoutRandomColor,
    PackMultiLabelInputs,
    RandAugmentUDA,
)
from mmclipdis.datasets.multi_label_voc import VOCMultiLabelDataset
from mmclipdis.datasets.panoptic_regions import PanopticRegionsDataset
from mmclipdis.datasets.region_transforms import (
    CropRegions,
    LetterboxRegions,
    LoadPanopticRegions,
    PackRegions,
)

__all__ = [
    "ADE20K847Dataset",
    "CATSegContext59Dataset",
    "COCOObjectDataset",
    "CachedTokens",
    "CocoMultiLabelDataset",
    "CropRegions",
    "CutoutRandomColor",
    "DistillImageDataset",
    "DistillViews",
    "GridCrops",
    "LetterboxRegions",
    "LoadPILImage",
    "LoadPanopticRegions",
    "LoadReadableAnnotations",
    "LoadReadableImage",
    "OVCocoDataset",
    "OVLVISDataset",
    "PackDistillInputs",
    "PackMultiLabelInputs",
    "PackRegions",
    "PanopticRegionsDataset",
    "PascalContext459Dataset",
    "PascalVOC20Dataset",
    "PascalVOC20bDataset",
    "RandAugmentUDA",
    "ResizeShortestEdgePIL",
    "ShapeScenesDataset",
    "VOCMultiLabelDataset",
]

if HAS_MMSEG:
    from mmclipdis.datasets.benchmarks import (
        CATSegContext59Dataset,
        COCOObjectDataset,
        PascalVOC20bDataset,
        PascalVOC20Dataset,
    )
    from mmclipdis.datasets.catseg_transforms import ResizeShortestEdgePIL
    from mmclipdis.datasets.label_maps import LoadReadableAnnotations
    from mmclipdis.datasets.large_vocabulary import ADE20K847Dataset, PascalContext459Dataset
    from mmclipdis.datasets.shapes import ShapeScenesDataset
if HAS_MMDET:
    from mmclipdis.datasets.ov_coco import OVCocoDataset
    from mmclipdis.datasets.ov_lvis import OVLVISDataset
if not (HAS_MMSEG and HAS_MMDET):
    __getattr__ = absent(__name__, __all__, ("OVCocoDataset", "OVLVISDataset"))
