"""CLIP's ResNet as a backbone: a pyramid for necks, a dense map for everything that reads CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from mmclipdis.clip.towers.readout import AnyReadout, get_readout
from mmclipdis.clip.towers.resnet import build_resnet_tower, check_pool_readout
from mmclipdis.clip.weights.loading import Arch
from mmclipdis.engine.random_weights import NO_SOURCE
from mmclipdis.models.stage_backbone import StageBackbone


@MODELS.register_module()
class CLIPResNet(StageBackbone):
    """CLIP's ResNet with a choice of readout for its attention pool.

    As a backbone it returns a tuple of maps: those of the four stages have stride 4, 8, 16 and 32
    and (RN50, RN101) 256, 512, 1024 and 2048 channels, as FPN and UPerNet expect of a ResNet.

    Args:
        arch: open_clip config name (``'RN50-quickgelu'``, ``'RN101-quickgelu'``: OpenAI's weights
            need the ``-quickgelu`` names, for the text tower) or a dict of the same form.
        readout: Name or fields of a :class:`~mmclipdis.clip.towers.readout.Readout`: ``v`` (DCLIP),
            ``vv``, ``qq``, ``kk``, ``csa``, ``all`` or ``qk``.
        positions: Resampling rule of the pool's position table: ``size`` (DCLIP), ``legacy``,
            ``antialias`` or ``bilinear`` (CLIP-Surgery).
        out_indices: What :meth:`forward` returns: 0 to 3 give the stages, ``'map'`` the dense map
            in the joint space, ``(B, E, h, w)`` of stride 32.
        normalize: L2-normalise the dense map, and the mean token, over the channels.
        mean_token: Whether :meth:`dense` reads out the mean token, too.
        trainable: ``()`` freezes the tower, ``('all',)`` trains it, but for what neither the
            readout nor ``out_indices`` read, since weights without gradient stop DDP.
        norm_eval: BatchNorms of a trained tower keep CLIP's statistics, too; those of a frozen one
            always do.
        any_readout: Load weights whatever readout they are marked with, as in
            :class:`~mmclipdis.models.backbones.CLIPViT`.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with an open_clip tag or a file, see
            :func:`~mmclipdis.clip.weights.loading.read_clip_checkpoint`, None or nothing, as in
            :class:`~mmclipdis.models.backbones.CLIPViT`.
        mean, std: Of the pixels that the weights were trained with, as there.

    Input of :meth:`forward` and :meth:`dense`: ``(B, 3, H, W)`` RGB with :attr:`statistics` taken
    off, both sides 32 px or more.

    Raises:
        ValueError: for an unknown arch, readout, position rule, trainable part or output.
    """

    kind = "a CLIP ResNet"

    def __init__(
        self,
        arch: Arch = "RN101-quickgelu",
        readout: str | AnyReadout | Mapping[str, Any] = "v",
        positions: str = "size",
        out_indices: Sequence[int | str] = ("map",),
        normalize: bool = False,
        mean_token: bool = True,
        trainable: Sequence[str] = (),
        norm_eval: bool = True,
        any_readout: bool = False,
        init_cfg: Mapping[str, Any] | None = NO_SOURCE,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        read = check_pool_readout(get_readout(readout))
        tower = build_resnet_tower(arch, positions, norm_eval)
        super().__init__(tower, arch, read, any_readout, normalize, init_cfg, mean, std)
        self.mean_token = mean_token
        self._finish(out_indices, trainable)

    def _dense_options(self) -> Mapping[str, Any]:
        return {"mean_token": self.mean_token}

    def _unread_of_the_map(self) -> Sequence[nn.Module]:
        pool, parts = self.tower.visual.attnpool, check_pool_readout(self.readout).parts
        return [getattr(pool, f"{part}_proj") for part in "qkv" if part not in parts]
