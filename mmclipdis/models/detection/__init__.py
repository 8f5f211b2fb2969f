"""Open-vocabulary detection with a frozen CLIP. The backbone needs no mmdet; all else does."""

from mmclipdis.models.detection.fvit_backbone import FViTBackbone

__all__ = ["FViTBackbone"]
