"""MobileCLIP's FastViT and CLIP's ConvNeXt as a backbone: a pyramid of stages and a dense map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS

from mmclipdis.clip.towers.readout import AnyReadout, get_readout
from mmclipdis.clip.towers.stages import build_stage_tower, check_stage_readout
from mmclipdis.clip.weights.loading import Arch
from mmclipdis.engine.random_weights import NO_SOURCE
from mmclipdis.models.stage_backbone import StageBackbone


@MODELS.register_module()
class CLIPConvNet(StageBackbone):
    """A CLIP tower of stages and an average pool: FastViT (MobileCLIP S) or ConvNeXt.

    Its options are those of ``CLIPViT``, as far as such a tower has them: there is no attention to
    read otherwise and no table of positions. Like a ``CLIPResNet`` it returns a tuple of maps: the
    stages have stride 4, 8, 16, 32 and, in MobileCLIP2-S3 and -S4, 64; necks take their channels
    from :attr:`stage_widths`.

    Args:
        arch: open_clip config name (``'MobileCLIP-S1'``, ``'MobileCLIP2-S0'``,
            ``'convnext_base_w'``) or a dict of the same form.
        readout: ``vanilla``: the head that makes CLIP's image embedding, at every location.
        positions: None.
        out_indices: What :meth:`forward` returns: numbers give the stages, ``'map'`` the dense map
            in the joint space, ``(B, E, h, w)`` of the stride of the last stage.
        normalize: L2-normalise the dense map over the channels.
        trainable: ``()`` freezes the tower, ``('all',)`` trains it, but for what ``out_indices`` do
            not read, since weights without gradient stop DDP.
        norm_eval: BatchNorms of a trained tower keep CLIP's statistics, too; those of a frozen one
            always do.
        any_readout: As in :class:`~mmclipdis.models.backbones.CLIPViT`.
        init_cfg, mean, std: As in :class:`~mmclipdis.models.backbones.CLIPViT`.

    Input of :meth:`forward` and :meth:`dense`: ``(B, 3, H, W)`` RGB with :attr:`statistics` taken
    off (0 and 1 for MobileCLIP S0 to S2, CLIP's for S3, S4 and ConvNeXt), both sides at least one
    location.

    Raises:
        ValueError: for an unknown arch, readout, trainable part or output, or a rule for positions.
    """

    kind = "this FastViT or ConvNeXt"

    def __init__(
        self,
        arch: Arch = "MobileCLIP-S1",
        readout: str | AnyReadout | Mapping[str, Any] = "vanilla",
        positions: None = None,
        out_indices: Sequence[int | str] = ("map",),
        normalize: bool = False,
        trainable: Sequence[str] = (),
        norm_eval: bool = True,
        any_readout: bool = False,
        init_cfg: Mapping[str, Any] | None = NO_SOURCE,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        read = get_readout(readout)
        check_stage_readout(read)
        if positions is not None:
            raise ValueError(
                f"CLIPConvNet.positions={positions!r}: a FastViT or ConvNeXt has no table of "
                "positions and fits every image size as it is; leave positions out"
            )
        tower = build_stage_tower(arch, norm_eval)
        super().__init__(tower, arch, read, any_readout, normalize, init_cfg, mean, std)
        self._finish(out_indices, trainable)
