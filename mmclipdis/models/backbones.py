"""CLIP's ViT as a backbone that any mm config can name; what the ResNet shares with it, too.

One class; the published methods are presets of its readout and of its position rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.features import DenseFeatures
from mmclipdis.clip.towers.readout import AnyReadout, get_readout
from mmclipdis.clip.weights.activation_mark import remember_activation
from mmclipdis.clip.weights.loading import Arch, has_quick_gelu, load_image_tower
from mmclipdis.clip.weights.readout_mark import remember_readout
from mmclipdis.clip.weights.statistics import possible_statistics
from mmclipdis.clip.weights.trainable import freeze_unread, set_trainable
from mmclipdis.engine.pixel_statistics import watch_statistics
from mmclipdis.engine.random_weights import NO_SOURCE, watch_weights
from mmclipdis.models.guided import Guided
from mmclipdis.utils.statistics import Statistics


class CLIPBackbone(BaseModule):
    """What every backbone of CLIP has: its arch, its readout, and weights that are marked with it.

    Args:
        arch, readout, any_readout, normalize, init_cfg, mean, std: As in :class:`CLIPViT`.
        tower: Image tower of ``arch``.

    Attributes:
        statistics: Mean and std, RGB from 0 to 1, of the pixels it takes.
        possible_statistics: All that its weights may have been trained with, as far as arch and
            ``init_cfg`` tell; a model's ``data_preprocessor`` must have one of them.
    """

    _is_init: bool  # mmengine's mark that init_weights() has run
    tower: Any
    statistics: Statistics
    possible_statistics: tuple[Statistics, ...]

    def __init__(
        self,
        tower: Any,
        arch: Arch,
        readout: str | AnyReadout | Mapping[str, Any],
        any_readout: bool,
        normalize: bool,
        init_cfg: Mapping[str, Any] | None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(init_cfg=dict(init_cfg) if init_cfg else None)
        self.tower = tower
        self.arch = arch
        self.readout = get_readout(readout)
        self.any_readout = any_readout
        remember_readout(self)
        self.quick_gelu = has_quick_gelu(arch)
        remember_activation(self)
        self.normalize = normalize
        self._taken_away = init_cfg is None
        self._set_statistics(mean, std)

    def _watch_weights(self) -> None:
        """At the end of the constructor, when the parameters have their names."""
        stem = self.tower.stem
        watch_weights(self, "tower.visual", entries=[stem], taken_away=self._taken_away)

    def _set_statistics(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        source = self.init_cfg.get("checkpoint") if isinstance(self.init_cfg, Mapping) else None
        one = source if isinstance(source, (str, Path)) else None  # of several files none says it
        known = possible_statistics(self.arch, one)
        self.possible_statistics = tuple(
            dict.fromkeys(
                Statistics(own.mean if mean is None else mean, own.std if std is None else std)
                for own in known
            )
        )
        self.statistics = self.possible_statistics[0]
        watch_statistics()

    @property
    def embed_dim(self) -> int:
        """Channels of the joint image-text space, which dense maps have."""
        return self.tower.embed_dim  # type: ignore[no-any-return]

    @property
    def image_dim(self) -> int:
        """Channels of the image embedding: dino.txt's has more than its dense map."""
        return int(getattr(self.tower, "image_dim", self.tower.embed_dim))

    @property
    def width(self) -> int:
        """Channels of the last block or stage."""
        return self.tower.width  # type: ignore[no-any-return]

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels a location of the map, (height, width)."""
        return self.tower.patch_size  # type: ignore[no-any-return]

    def init_weights(self) -> None:
        """Load the weights that ``init_cfg`` names; without one the weights stay random.

        Nobody must call this: where it was not called, the first image does
        (:mod:`mmclipdis.engine.random_weights`).

        Raises:
            FileNotFoundError, ValueError: if they do not exist or do not fit, or were saved with
                another readout.
        """
        if self.init_cfg is None or self._is_init:
            return
        checkpoint = pretrained_source(self.init_cfg, type(self).__name__)
        readout = None if self.any_readout else self.readout
        load_image_tower(self.tower, self.arch, checkpoint, readout)
        self._is_init = True


@MODELS.register_module()
class CLIPViT(Guided, CLIPBackbone):
    """CLIP's ViT, OpenAI-style or EVA-02, with a choice of readout for its last block.

    As a backbone it returns a tuple of maps, as necks and heads of mmseg and mmdet expect; heads
    of this package call :meth:`dense` for everything else the tower can tell.

    Args:
        arch: open_clip config name (``'ViT-B-16-quickgelu'``: OpenAI and MetaCLIP weights need the
            ``-quickgelu`` names, LAION's the plain ones; ``'EVA02-B-16'``, ``'EVA02-L-14-336'``) or
            a dict of the same form.
        readout: Name or fields of a :class:`~mmclipdis.clip.towers.readout.Readout`.
        positions: Resampling rule of the position table, a name of
            :mod:`mmclipdis.clip.towers.positions`. None is the rule of the arch: ``legacy`` for
            OpenAI-style ViTs, that of its own code for other families (docs/encoders.md).
        out_indices: What :meth:`forward` returns: block numbers give ``(B, D, h, w)``, ``'map'``
            the dense map in the joint space, ``(B, E, h, w)``.
        trainable: ``()`` freezes the tower, ``('all',)`` trains it, a subset of ``('q', 'k',
            'v')`` trains these matrices of every block (CAT-Seg), ``('attention',)`` its whole
            attention, ``('prefix',)`` CLS and registers, ``('blocks',)`` every block and nothing
            outside them and ``('blocks', n)`` the last ``n`` (DeCLIP). What neither the readout nor
            ``out_indices`` read stays frozen, since weights without gradient stop DDP.
        normalize: L2-normalise the dense map over its channels.
        grad_checkpointing: Recompute the blocks in the backward pass to save memory.
        vfm: Config of the vision model that a readout with an affinity is guided by, such as
            ``dict(type='TimmVFM', model='dino-B-8', init_cfg=...)``. It is frozen, sees the pixels
            that CLIP sees, and is not in checkpoints.
        any_readout: Load weights whatever readout they are marked with. Otherwise weights that
            were saved with another readout than this one are an error: they load, but their
            results are wrong. (Weights without a mark are never refused.)
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with an open_clip tag or a file, see
            :func:`~mmclipdis.clip.weights.loading.read_clip_checkpoint`. Read by
            ``init_weights()`` or before the first forward pass, never by the constructor. Left out:
            random weights, with a warning. None: weights must come by a checkpoint or a training.
        mean, std: Of the pixels that the weights were trained with, RGB from 0 to 1. None is that
            of the tag or of the arch
            (:func:`~mmclipdis.clip.weights.statistics.possible_statistics`).

    Input of :meth:`forward` and :meth:`dense`: ``(B, 3, H, W)`` RGB with :attr:`statistics` taken
    off (for CLIP's own weights ``data_preprocessor`` has mean 122.771, 116.746, 104.094, std
    68.501, 66.632, 70.323). A model whose ``data_preprocessor`` has others is refused.

    Raises:
        ValueError: for an unknown arch, readout, position rule, trainable part or output; for a
            readout with an affinity and no ``vfm``, or the other way round.
    """

    def __init__(
        self,
        arch: Arch = "ViT-B-16-quickgelu",
        readout: str | AnyReadout | Mapping[str, Any] = "vanilla",
        positions: str | None = None,
        out_indices: Sequence[int | str] = ("map",),
        trainable: Sequence[str | int] = (),
        normalize: bool = False,
        grad_checkpointing: bool = False,
        any_readout: bool = False,
        vfm: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = NO_SOURCE,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        tower = build_image_tower(arch, positions)
        super().__init__(tower, arch, readout, any_readout, normalize, init_cfg, mean, std)
        self.tower.check_readout(self.readout)
        self.tower.grad_checkpointing = grad_checkpointing
        self.out_indices = self._check_out_indices(out_indices)
        self.trainable = tuple(trainable)
        set_trainable(self.tower, self.trainable)
        self.take_guide(vfm)
        self._freeze_unread()
        self._watch_weights()

    @property
    def num_blocks(self) -> int:
        """Number of transformer blocks."""
        return len(self.tower.blocks)

    def init_weights(self) -> None:
        """Load the weights of CLIP, see ``CLIPBackbone``, and those of the ``vfm``."""
        super().init_weights()
        if self.vfm is not None:
            self.vfm.init_weights()

    def dense(
        self,
        images: Tensor,
        masks: Tensor | None = None,
        *,
        intermediates: Sequence[int] = (),
        context: Sequence[str] = (),
        with_cls: bool = False,
    ) -> DenseFeatures:
        """Dense features of normalised RGB images ``(B, 3, H, W)``; see the tower's protocol.

        Args:
            images: ``(B, 3, H, W)``.
            masks: ``(B, H, W)`` int64, the mask that each pixel lies in, if :attr:`needs_masks`;
                the smallest number of an image means "in none".
            intermediates, context, with_cls: As in the tower's ``forward_dense``.

        Raises:
            ValueError: as there; no masks where there must be some; sides that are no whole patches
                of both CLIP and the ``vfm``.
        """
        features: DenseFeatures = self.tower.forward_dense(
            images,
            self.readout,
            intermediates=intermediates,
            context=context,
            with_cls=with_cls,
            guide=self.guide(images, masks),
        )
        if not self.normalize:
            return features
        unit = F.normalize(features.map, dim=1)
        return DenseFeatures(unit, features.cls, features.context, features.intermediates)

    def forward(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, ...]:
        """The maps named by ``out_indices``, in their order; ``masks`` as in :meth:`dense`."""
        blocks = [index for index in self.out_indices if isinstance(index, int)]
        if "map" not in self.out_indices:
            return self.tower.forward_blocks(images, blocks)
        features = self.dense(images, masks, intermediates=blocks)
        maps = iter(features.intermediates)
        return tuple(next(maps) if isinstance(i, int) else features.map for i in self.out_indices)

    def _freeze_unread(self) -> None:
        """Freeze what :meth:`forward` never reads."""
        blocks = self.tower.blocks
        last = max((i % len(blocks) for i in self.out_indices if isinstance(i, int)), default=-1)
        if "map" not in self.out_indices:
            behind = [p for block in blocks[last + 1 :] for p in block.parameters()]
            for parameter in (*behind, *self.tower.joint_parameters()):
                parameter.requires_grad_(False)
            return
        for parameter in self.tower.pool.read_by_embedding_alone(self.tower):
            parameter.requires_grad_(False)
        if last < len(blocks) - 1:
            freeze_unread(blocks[-1], self.readout, len(blocks))

    def _check_out_indices(self, out_indices: Sequence[int | str]) -> tuple[int | str, ...]:
        depth = self.tower.depth
        for index in out_indices:
            is_block = isinstance(index, int) and -depth <= index < depth
            if index != "map" and not is_block:
                raise ValueError(
                    f"out_indices={tuple(out_indices)}: {index!r} is neither 'map' nor a block "
                    f"of a tower with {depth} blocks"
                )
        if not out_indices:
            raise ValueError("out_indices is empty: name blocks or 'map'")
        return tuple(out_indices)


def pretrained_source(init_cfg: Any, owner: str) -> str | list[str]:
    """The checkpoint that an ``init_cfg`` of a CLIP module names: one, or the files of its parts.

    Raises:
        ValueError: if it is of another type than ``Pretrained``.
    """
    if not isinstance(init_cfg, Mapping) or init_cfg.get("type") != "Pretrained":
        raise ValueError(
            f"{owner}.init_cfg must be dict(type='Pretrained', checkpoint=<open_clip tag or "
            f"file>), got {init_cfg!r}"
        )
    if not init_cfg.get("checkpoint"):
        raise ValueError(f"{owner}.init_cfg names no checkpoint")
    checkpoint = init_cfg["checkpoint"]
    if isinstance(checkpoint, (list, tuple)):
        return [str(one) for one in checkpoint]
    return str(checkpoint)
