"""What the mm runners build; importing it registers everything."""

from mmclipdis.models.backbones import (
    CLIPSurgeryViT,
    CLIPViT,
    ClearCLIPViT,
    DeCLIPViT,
    MaskCLIPViT,
    SCLIPViT,
)

__all__ = [
    "CLIPSurgeryViT",
    "CLIPViT",
    "ClearCLIPViT",
    "DeCLIPViT",
    "MaskCLIPViT",
    "SCLIPViT",
]
