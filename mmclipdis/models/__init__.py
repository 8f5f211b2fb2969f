"""What the mm runners build; importing it registers everything.

Without mmseg and mmdet there are backbones, losses, text encoder, distillation and recognition;
the rest says what is missing.
"""

from mmclipdis.compat.optional import HAS_MMDET, HAS_MMSEG, absent
from mmclipdis.models.backbones import CLIPViT
from mmclipdis.models.clip_convnet import CLIPConvNet
from mmclipdis.models.clip_resnet import CLIPResNet
from mmclipdis.models.detection import (
    FViTBackbone,
    NovelMaskedCrossEntropyLoss,
    OVDQUOResNetBackbone,
    OVDQUOViTBackbone,
)
from mmclipdis.models.distillation.declip import DeCLIP
from mmclipdis.models.distillation.preprocessor import DistillDataPreprocessor
from mmclipdis.models.distillation.regions import RegionClassifier
from mmclipdis.models.losses import (
    AsymmetricLoss,
    ContentLoss,
    ContextCorrelationLoss,
    GatheredBCELoss,
    MFILoss,
)
from mmclipdis.models.presets import (
    ClearCLIPViT,
    CLIPSurgeryViT,
    DeCLIPViT,
    GEMViT,
    MaskCLIPViT,
    SCLIPViT,
)
from mmclipdis.models.projectors import Projectors
from mmclipdis.models.recognition.dclip import DCLIP
from mmclipdis.models.recognition.preprocessor import DCLIPDataPreprocessor
from mmclipdis.models.recognition.zero_shot import ZeroShotRecognizer
from mmclipdis.models.sam_matrix import SAMMatrix
from mmclipdis.models.segmentation import LPAM
from mmclipdis.models.text_encoder import OpenCLIPTextEncoder, build_vocabulary
from mmclipdis.models.vfm import TimmVFM

__all__ = [
    "DCLIP",
    "LPAM",
    "PAMR",
    "AsymmetricLoss",
    "CATSeg",
    "CATSegHead",
    "CLIPConvNet",
    "CLIPResNet",
    "CLIPSurgeryViT",
    "CLIPViT",
    "ClearCLIPViT",
    "ContentLoss",
    "ContextCorrelationLoss",
    "CosineSegHead",
    "DCLIPDataPreprocessor",
    "DeCLIP",
    "DeCLIPViT",
    "DistillDataPreprocessor",
    "FViT",
    "FViTBBoxHead",
    "FViTBackbone",
    "FViTRPNHead",
    "FViTRoIHead",
    "GEMViT",
    "GatheredBCELoss",
    "InfoCLIP",
    "MFILoss",
    "MaskCLIPViT",
    "MaskFolder",
    "MaskFunction",
    "MaskVote",
    "MeanShiftMasks",
    "MixedSizeSegDataPreProcessor",
    "NovelMaskedCrossEntropyLoss",
    "OVDQUOResNetBackbone",
    "OVDQUOViTBackbone",
    "OpenCLIPTextEncoder",
    "OpenVocabSegmentor",
    "OpenVocabTTAModel",
    "Projectors",
    "RegionClassifier",
    "SAMMatrix",
    "SCLIPViT",
    "TimmVFM",
    "ZeroShotRecognizer",
    "build_vocabulary",
]

if HAS_MMSEG:
    from mmclipdis.models.segmentation import (
        PAMR,
        CATSeg,
        CATSegHead,
        CosineSegHead,
        InfoCLIP,
        MaskFolder,
        MaskFunction,
        MaskVote,
        MeanShiftMasks,
        MixedSizeSegDataPreProcessor,
        OpenVocabSegmentor,
        OpenVocabTTAModel,
    )
if HAS_MMDET:
    from mmclipdis.models.detection import FViT, FViTBBoxHead, FViTRoIHead, FViTRPNHead
if not (HAS_MMSEG and HAS_MMDET):
    __getattr__ = absent(
        __name__, __all__, detection=["FViT", "FViTBBoxHead", "FViTRPNHead", "FViTRoIHead"]
    )
