"""Segmentors, heads and what they share; importing it registers them in mmseg."""

from mmclipdis.models.segmentation.catseg import CATSeg
from mmclipdis.models.segmentation.catseg_head import CATSegHead
from mmclipdis.models.segmentation.cosine_head import CosineSegHead
from mmclipdis.models.segmentation.infoclip import InfoCLIP
from mmclipdis.models.segmentation.open_vocab_segmentor import OpenVocabSegmentor
from mmclipdis.models.segmentation.preprocessor import MixedSizeSegDataPreProcessor

__all__ = [
    "CATSeg",
    "CATSegHead",
    "CosineSegHead",
    "InfoCLIP",
    "MixedSizeSegDataPreProcessor",
    "OpenVocabSegmentor",
]
