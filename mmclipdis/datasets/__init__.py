"""Data sets and transforms; importing it registers them.

Those of segmentation are there if mmseg is, those of detection if mmdet is.
"""

from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG, absent
from mmclipdis.datasets.detection.repeat_factor_sampler import RepeatFactorSampler
from mmclipdis.datasets.distillation.grid_crops import GridCrops
from mmclipdis.datasets.distillation.images import DistillImageDataset
from mmclipdis.datasets.distillation.panoptic_regions import PanopticRegionsDataset
from mmclipdis.datasets.distillation.region_transforms import (
    CropRegions,
    LetterboxRegions,
    LoadPanopticRegions,
    PackRegions,
)
from mmclipdis.datasets.distillation.transforms import DistillViews, LoadPILImage, PackDistillInputs
from mmclipdis.datasets.loading import LoadReadableImage
from mmclipdis.datasets.packing import KeepsTexts
from mmclipdis.datasets.recognition.cached_tokens import CachedTokens
from mmclipdis.datasets.recognition.coco import CocoMultiLabelDataset
from mmclipdis.datasets.recognition.listed import MultiLabelListDataset
from mmclipdis.datasets.recognition.transforms import (
    CutoutRandomColor,
    PackMultiLabelInputs,
    RandAugmentUDA,
)
from mmclipdis.datasets.recognition.voc import VOCMultiLabelDataset

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
    "FolderSegDataset",
    "GridCrops",
    "KeepsTexts",
    "LetterboxRegions",
    "LoadPILImage",
    "LoadPanopticRegions",
    "LoadReadableAnnotations",
    "LoadReadableImage",
    "MultiLabelListDataset",
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
    "RepeatFactorSampler",
    "ResizeShortestEdgePIL",
    "ShapeScenesDataset",
    "VOCMultiLabelDataset",
]

if HAS_MMSEG:
    from mmclipdis.datasets.segmentation.benchmarks import (
        CATSegContext59Dataset,
        COCOObjectDataset,
        PascalVOC20bDataset,
        PascalVOC20Dataset,
    )
    from mmclipdis.datasets.segmentation.folders import FolderSegDataset
    from mmclipdis.datasets.segmentation.label_maps import LoadReadableAnnotations
    from mmclipdis.datasets.segmentation.large_vocabulary import (
        ADE20K847Dataset,
        PascalContext459Dataset,
    )
    from mmclipdis.datasets.segmentation.own_metainfo import install_own_metainfo
    from mmclipdis.datasets.segmentation.shapes import ShapeScenesDataset
    from mmclipdis.datasets.segmentation.transforms import ResizeShortestEdgePIL

    install_own_metainfo()
if HAS_MMDET:
    from mmclipdis.datasets.detection.coco import OVCocoDataset
    from mmclipdis.datasets.detection.lvis import OVLVISDataset
if not (HAS_MMSEG and HAS_MMDET):
    __getattr__ = absent(__name__, __all__, ("OVCocoDataset", "OVLVISDataset"))
