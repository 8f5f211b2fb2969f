"""Published methods as backbones of their own: presets of readout and position rule."""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS

from mmclipdis.models.backbones import CLIPViT


@MODELS.register_module()
class MaskCLIPViT(CLIPViT):
    """:class:`CLIPViT` as in MaskCLIP: values only, residual and FFN kept."""

    def __init__(
        self, *, readout: Any = "maskclip", positions: str | None = "size", **kwargs: Any
    ) -> None:
        super().__init__(readout=readout, positions=positions, **kwargs)


@MODELS.register_module()
class SCLIPViT(CLIPViT):
    """:class:`CLIPViT` as in SCLIP: ``qq + kk``, residual and FFN kept."""

    def __init__(self, *, readout: Any = "sclip", **kwargs: Any) -> None:
        super().__init__(readout=readout, **kwargs)


@MODELS.register_module()
class ClearCLIPViT(CLIPViT):
    """:class:`CLIPViT` as in ClearCLIP: ``qq``, no residual, no FFN."""

    def __init__(self, *, readout: Any = "clearclip", **kwargs: Any) -> None:
        super().__init__(readout=readout, **kwargs)


@MODELS.register_module()
class DeCLIPViT(CLIPViT):
    """:class:`CLIPViT` as in DeCLIP: ``qq + kk``, no residual, no FFN, unit-norm map."""

    def __init__(
        self,
        *,
        readout: Any = "declip",
        positions: str | None = "size",
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(readout=readout, positions=positions, normalize=normalize, **kwargs)


@MODELS.register_module()
class CLIPSurgeryViT(CLIPViT):
    """:class:`CLIPViT` as in CLIP-Surgery: a second, vv-attention stream over six blocks."""

    def __init__(
        self,
        *,
        readout: Any = "clip_surgery",
        positions: str | None = "bilinear",
        **kwargs: Any,
    ) -> None:
        super().__init__(readout=readout, positions=positions, **kwargs)


@MODELS.register_module()
class GEMViT(CLIPViT):
    """:class:`CLIPViT` as GEM in ClearCLIP's code: a second stream of grouped attention."""

    def __init__(
        self, *, readout: Any = "gem", positions: str | None = "antialias", **kwargs: Any
    ) -> None:
        super().__init__(readout=readout, positions=positions, **kwargs)
