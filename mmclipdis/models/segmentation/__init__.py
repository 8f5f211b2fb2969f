"""Segmentors, heads and what they share. The LPAM needs no mmseg; all else does."""

from mmclipdis.compat.optional import HAS_MMSEG, absent
from mmclipdis.models.segmentation.infoclip.lpam import LPAM

__all__ = [
    "LPAM",
    "PAMR",
    "CATSeg",
    "CATSegHead",
    "CosineSegHead",
    "EncoderDecoder",
    "InfoCLIP",
    "MaskFolder",
    "MaskFunction",
    "MaskVote",
    "MeanShiftMasks",
    "MixedSizeSegDataPreProcessor",
    "OpenVocabSegmentor",
    "OpenVocabTTAModel",
]

if HAS_MMSEG:
    from mmclipdis.models.segmentation.catseg.head import CATSegHead
    from mmclipdis.models.segmentation.catseg.segmentor import CATSeg
    from mmclipdis.models.segmentation.cosine_head import CosineSegHead
    from mmclipdis.models.segmentation.encoder_decoder import EncoderDecoder
    from mmclipdis.models.segmentation.infoclip.segmentor import InfoCLIP
    from mmclipdis.models.segmentation.mask_folder import MaskFolder
    from mmclipdis.models.segmentation.masks import MaskFunction
    from mmclipdis.models.segmentation.mean_shift_masks import MeanShiftMasks
    from mmclipdis.models.segmentation.open_vocab_segmentor import OpenVocabSegmentor
    from mmclipdis.models.segmentation.preprocessor import MixedSizeSegDataPreProcessor
    from mmclipdis.models.segmentation.refiners.mask_vote import MaskVote
    from mmclipdis.models.segmentation.refiners.pamr import PAMR
    from mmclipdis.models.segmentation.tta import OpenVocabTTAModel
else:
    __getattr__ = absent(__name__, __all__)
