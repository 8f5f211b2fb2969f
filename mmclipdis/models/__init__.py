"""What the mm runners build; importing it registers everything.

Without mmseg there are backbones, losses and text encoder; the rest says what it needs.
"""

from mmclipdis.compat.optional import HAS_MMSEG, absent
from mmclipdis.models.backbones import (
    ClearCLIPViT,
    CLIPSurgeryViT,
    CLIPViT,
    DeCLIPViT,
    MaskCLIPViT,
    SCLIPViT,
)
from mmclipdis.models.losses import GatheredBCELoss
from mmclipdis.models.text_encoder import OpenCLIPTextEncoder, build_vocabulary

__all__ = [
    "CATSeg",
    "CATSegHead",
    "CLIPSurgeryViT",
    "CLIPViT",
    "ClearCLIPViT",
    "CosineSegHead",
    "DeCLIPViT",
    "GatheredBCELoss",
    "MaskCLIPViT",
    "MixedSizeSegDataPreProcessor",
    "OpenCLIPTextEncoder",
    "OpenVocabSegmentor",
    "OpenVocabTTAModel",
    "SCLIPViT",
    "build_vocabulary",
]

if HAS_MMSEG:
    from mmclipdis.models.segmentation import (
        CATSeg,
        CATSegHead,
        CosineSegHead,
        MixedSizeSegDataPreProcessor,
        OpenVocabSegmentor,
    )
    from mmclipdis.models.segmentation.tta import OpenVocabTTAModel
else:
    __getattr__ = absent(__name__, __all__)
