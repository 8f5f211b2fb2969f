"""A frozen CLIP ViT that gives a detector the maps of some of its blocks and its dense map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.models.backbones import CLIPViT
from mmclipdis.models.detection.frozen import FrozenCLIP
from mmclipdis.models.guided import check_map_on_patches

#: Options of the encoder that the backbone decides itself.
_OWN_OPTIONS = ("out_indices", "trainable", "normalize", "grad_checkpointing")


class FrozenViT(FrozenCLIP):
    """What the backbones of detectors on a frozen CLIP ViT share; the layers are the subclass's.

    One pass of the encoder gives all maps. It has no gradients and stays in evaluation mode.

    Args:
        encoder: Config of a :class:`~mmclipdis.models.backbones.CLIPViT` or one of its presets,
            EVA-02 or OpenAI-style, with ``arch``, ``readout``, ``positions``, ``any_readout``,
            ``init_cfg``.
        out_indices: The blocks, 0-based, ascending, as many as the pyramid has levels. Negative
            counts from the end.
        last_level: What the last map is: ``'readout'``, the patch tokens of the last block under
            the encoder's readout, before the final norm; or ``'vanilla'``, the output of block
            ``out_indices[-1]`` as CLIP has it. Subclasses call it after its level, ``level3``.
        normalize: ``'before'``: the dense map is L2-normalised over its channels, thus before
            regions are pooled; ``'after'``: it is not.
        num_levels: How many levels the pyramid has.

    Raises:
        ValueError: for another kind of encoder, options of it that are decided here, or values that
            do not go together.
    """

    #: The published choices of blocks, for messages.
    usual_blocks = "F-ViT: (3, 5, 7, 11) for ViT-B, (6, 10, 14, 23) for ViT-L"

    def __init__(
        self,
        encoder: Mapping[str, Any],
        out_indices: Sequence[int],
        last_level: str,
        normalize: str,
        num_levels: int,
    ) -> None:
        super().__init__()
        level = f"level{num_levels - 1}"
        self._check_choice(level, last_level, ("readout", "vanilla"))
        self._check_choice("normalize", normalize, ("before", "after"))
        self.encoder = self._build_encoder(encoder)
        if last_level == "readout" and self.encoder.branches is not None:
            raise ValueError(
                f"{self._name}.{level}='readout' needs patch tokens, and the dense map of a "
                f"readout with branches is a sum of several: set {level}='vanilla'"
            )
        self.out_indices = self._checked_blocks(out_indices, num_levels)
        if last_level == "readout" and self.out_indices[-1] != self.encoder.num_blocks - 1:
            raise ValueError(
                f"{self._name}.out_indices={tuple(out_indices)}: {level}='readout' reads the last "
                f"block, {self.encoder.num_blocks - 1}; end with it ({self.usual_blocks}), or set "
                f"{level}='vanilla'"
            )
        self.last_level = last_level
        self.normalize = normalize

    @property
    def width(self) -> int:
        """Channels ``W`` of the blocks' maps."""
        return self.encoder.width  # type: ignore[no-any-return]

    @torch.no_grad()
    def encode(
        self, images: Tensor, with_map: bool = True
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Maps ``(B, W, h, w)`` of the blocks and the dense map ``(B, D, h, w)``, fp32, or None.

        Args:
            images: ``(B, 3, H, W)``, normalised; ``h x w`` are its patches.
            with_map: Whether somebody reads the dense map.

        Raises:
            ValueError: if a side is no multiple of the patch, or zero.
        """
        self._check_size(images)
        tower = self.encoder.tower
        from_readout = self.last_level == "readout"
        if not (from_readout or with_map):
            return tower.forward_blocks(images, self.out_indices), None
        asked = self.out_indices[:-1] if from_readout else self.out_indices
        # Of the tower itself: presets such as DeCLIPViT normalise their map.
        features = tower.forward_dense(
            images,
            self.encoder.readout,
            intermediates=asked,
            with_tokens=from_readout,
            guide=self.encoder.guide(images),
        )
        blocks = features.intermediates
        if from_readout:
            blocks = (*blocks, features.tokens)
        return blocks, self._joint_map(features.map) if with_map else None

    def _joint_map(self, dense: Tensor) -> Tensor:
        # Regions are pooled and compared with text in fp32, under autocast too.
        dense = dense.float()
        return F.normalize(dense, dim=1) if self.normalize == "before" else dense

    def _check_size(self, images: Tensor) -> None:
        height, width = images.shape[-2:]
        patch = self.patch_size
        if height < patch or width < patch or height % patch or width % patch:
            raise ValueError(
                f"{self._name} got images of {height} x {width} px, whose sides are no multiples "
                f"of its patch of {patch} px; set pad_size_divisor of the data_preprocessor to a "
                f"multiple of {patch} (as published: to the image size, which makes images square)"
            )

    def _check_choice(self, name: str, value: str, known: Sequence[str]) -> None:
        if value not in known:
            raise ValueError(
                f"{self._name}.{name} must be one of {', '.join(known)}, got {value!r}"
            )

    def _build_encoder(self, config: Mapping[str, Any]) -> CLIPViT:
        given = f"{self._name}.encoder"
        reason = "the backbone has out_indices and normalize of its own"
        self._refuse_options(config, _OWN_OPTIONS, reason)
        encoder = MODELS.build(dict(config))  # frozen, as no CLIPViT trains unless it is told to
        if not isinstance(encoder, CLIPViT):
            raise ValueError(
                f"{given} is a {type(encoder).__name__}, which has no transformer blocks; take a "
                "CLIPViT or one of its presets such as DeCLIPViT"
            )
        if encoder.patch_size[0] != encoder.patch_size[1]:
            raise ValueError(f"{given} has patches of {encoder.patch_size} px; they must be square")
        if encoder.needs_masks:
            raise ValueError(
                f"{given} has a readout with scope='masks', and detectors have no masks of photos: "
                "choose another, such as 'proxyclip'"
            )
        check_map_on_patches(encoder, given)
        return encoder

    def _checked_blocks(self, indices: Sequence[int], count: int) -> tuple[int, ...]:
        """The blocks, counted from the first one."""
        depth = self.encoder.num_blocks
        given = f"{self._name}.out_indices={tuple(indices)}"
        wrong = [index for index in indices if not -depth <= index < depth]
        if wrong:
            raise ValueError(f"{given}: the encoder has {depth} blocks, there is no {wrong[0]}")
        blocks = tuple(index % depth for index in indices)
        if len(blocks) != count or list(blocks) != sorted(set(blocks)):
            raise ValueError(f"{given}: name {count} blocks in ascending order")
        return blocks
