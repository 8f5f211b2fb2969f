"""Open-vocabulary detection with a frozen CLIP. Backbones and loss need no mmdet; all else does."""

from mmclipdis.compat.optional import HAS_MMDET, absent
from mmclipdis.models.detection.fvit.backbone import FViTBackbone
from mmclipdis.models.detection.fvit.losses import NovelMaskedCrossEntropyLoss
from mmclipdis.models.detection.ovdquo.backbone import OVDQUOViTBackbone
from mmclipdis.models.detection.ovdquo.resnet_backbone import OVDQUOResNetBackbone

_DETECTION = ["FViT", "FViTBBoxHead", "FViTRPNHead", "FViTRoIHead", "OVDQUO", "OVDQUOHead"]

__all__ = [
    "OVDQUO",
    "FViT",
    "FViTBBoxHead",
    "FViTBackbone",
    "FViTRPNHead",
    "FViTRoIHead",
    "NovelMaskedCrossEntropyLoss",
    "OVDQUOHead",
    "OVDQUOResNetBackbone",
    "OVDQUOViTBackbone",
]

if HAS_MMDET:
    from mmclipdis.models.detection.fvit.bbox_head import FViTBBoxHead
    from mmclipdis.models.detection.fvit.detector import FViT
    from mmclipdis.models.detection.fvit.roi_head import FViTRoIHead
    from mmclipdis.models.detection.fvit.rpn_head import FViTRPNHead
    from mmclipdis.models.detection.ovdquo.detector import OVDQUO
    from mmclipdis.models.detection.ovdquo.head import OVDQUOHead
    from mmclipdis.models.detection.unknown_boxes import install_unknown_box_check

    install_unknown_box_check()
else:
    __getattr__ = absent(__name__, __all__, detection=_DETECTION)
