"""Adapters from open_clip's towers to one protocol that returns :class:`DenseFeatures`.

open_clip cannot run its ViT at another size than the one it was built for (it adds the position
table as it is), so the stem stands here again; everything after it is open_clip's own modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
import torch
from open_clip.model import _build_text_tower, _build_vision_tower
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from mmclipdis.clip.attention import BlockReader, has_plain_attention, run_blocks
from mmclipdis.clip.features import DenseFeatures, tokens_to_map
from mmclipdis.clip.positions import check_position_rule, resample_positions
from mmclipdis.clip.readout import AnyReadout, DualPath, Readout
from mmclipdis.clip.weights import Arch, model_config


class OpenCLIPViT(nn.Module):
    """An OpenAI, LAION or MetaCLIP ViT held by open_clip, at any size, square or not.

    Args:
        visual: open_clip's vision transformer (CLS pooling, ``ln_pre``, ``ln_post``, ``proj``).
        positions: Resampling rule of the position table, see :mod:`mmclipdis.clip.positions`.

    Attributes:
        width: Channels ``D`` of the blocks.
        embed_dim: Channels ``E`` of the joint space.
        depth: Number of blocks.
        heads: Attention heads.
        patch_size: (height, width) in pixels.
        image_size: Native (height, width) in pixels.
        grad_checkpointing: Recompute the ordinary blocks in the backward pass.

    Raises:
        ValueError: for a tower of another kind (attention pooling, average pooling, no ``ln_pre``,
            ``ln_post`` after pooling, normalised q and k): dense readouts are not defined for it.
    """

    def __init__(self, visual: VisionTransformer, positions: str = "legacy") -> None:
        super().__init__()
        _check_readable(visual)
        self.visual = visual
        self.positions = check_position_rule(positions)
        self.width = int(visual.conv1.out_channels)
        self.embed_dim = int(visual.proj.shape[1])
        self.depth = len(visual.transformer.resblocks)
        self.heads = int(visual.transformer.resblocks[0].attn.num_heads)
        self.patch_size = (int(visual.patch_size[0]), int(visual.patch_size[1]))
        self.image_size = (int(visual.image_size[0]), int(visual.image_size[1]))
        self.grad_checkpointing = False

    @property
    def blocks(self) -> nn.ModuleList:
        """The residual blocks, first to last."""
        return self.visual.transformer.resblocks  # type: ignore[no-any-return]

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Patch grid (h, w) of ``images``: remainders right and below are cut off.

        Raises:
            ValueError: if a side is shorter than a patch.
        """
        size = tuple(images.shape[-2:])
        grid = (size[0] // self.patch_size[0], size[1] // self.patch_size[1])
        if 0 in grid:
            raise ValueError(
                f"image or crop of {size[0]} x {size[1]} px is smaller than one patch of "
                f"{self.patch_size[0]} x {self.patch_size[1]} px; use a larger crop or resize"
            )
        return grid

    def embed(self, images: Tensor) -> Tensor:
        """Patch and CLS tokens with positions, after ``ln_pre``: ``(B, 1 + h*w, D)``."""
        visual = self.visual
        grid = self.grid_of(images)
        patches = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, h*w, D)
        cls = visual.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        native = (int(visual.grid_size[0]), int(visual.grid_size[1]))
        table = resample_positions(visual.positional_embedding, native, grid, self.positions)
        tokens = torch.cat([cls, patches], dim=1) + table.to(patches.dtype)
        return visual.ln_pre(visual.patch_dropout(tokens))  # type: ignore[no-any-return]

    def to_joint(self, tokens: Tensor) -> Tensor:
        """``ln_post`` and projection of every token: ``(B, L, D)`` to ``(B, L, E)``."""
        return self.visual.ln_post(tokens) @ self.visual.proj  # type: ignore[no-any-return]

    def encode_image(self, images: Tensor) -> Tensor:
        """CLIP's image embedding ``(B, E)``, not normalised, at any image size."""
        x, _ = run_blocks(self.blocks[:-1], self.embed(images), checkpoint=self.grad_checkpointing)
        return self.to_joint(BlockReader(self.blocks[-1], x).cls())[:, 0]

    def forward_dense(
        self,
        images: Tensor,
        readout: AnyReadout,
        *,
        intermediates: Sequence[int] = (),
        context: Sequence[str] = (),
        with_cls: bool = False,
    ) -> DenseFeatures:
        """Dense features; only what is asked for is computed.

        Args:
            images: ``(B, 3, H, W)`` normalised RGB.
            readout: How the last block (or, for :class:`DualPath`, the last blocks) is read.
            intermediates: 0-based blocks whose outputs are wanted; negative counts from the end.
            context: Which of ``q``, ``k``, ``v`` of the last block are wanted.
            with_cls: Whether the image embedding is wanted (that of ordinary CLIP).

        Raises:
            ValueError: for an image smaller than a patch or a block that does not exist.
        """
        grid = self.grid_of(images)
        keep = [self._block_index(i) for i in intermediates]
        inputs = [index - 1 for index in self._blocks_of(readout)]
        embedded = self.embed(images)
        x, kept = run_blocks(self.blocks[:-1], embedded, [*keep, *inputs], self.grad_checkpointing)
        kept[-1] = embedded
        last = BlockReader(self.blocks[-1], x)
        if self.depth - 1 in keep:
            kept[self.depth - 1] = last.ordinary()
        if isinstance(readout, Readout):
            tokens = last.patches(readout)
        else:
            tokens = self._second_path(kept, last, readout)
        projected = last.parts(context)
        return DenseFeatures(
            map=tokens_to_map(self.to_joint(tokens), grid),
            cls=self.to_joint(last.cls())[:, 0] if with_cls else None,
            context={name: tokens_to_map(part[:, 1:], grid) for name, part in projected.items()},
            intermediates=tuple(tokens_to_map(kept[i][:, 1:], grid) for i in keep),
        )

    def forward_blocks(self, images: Tensor, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Outputs ``(B, D, h, w)`` of the named blocks; blocks after the last one are not run."""
        grid = self.grid_of(images)
        keep = [self._block_index(i) for i in indices]
        blocks = self.blocks[: max(keep) + 1]
        _, kept = run_blocks(blocks, self.embed(images), keep, self.grad_checkpointing)
        return tuple(tokens_to_map(kept[i][:, 1:], grid) for i in keep)

    def _block_index(self, index: int) -> int:
        if not -self.depth <= index < self.depth:
            raise ValueError(f"block {index} does not exist: the tower has {self.depth} blocks")
        return index % self.depth

    def _blocks_of(self, readout: AnyReadout) -> range:
        """The blocks whose inputs CLIP-Surgery's second path reads."""
        count = readout.blocks if isinstance(readout, DualPath) else 0
        if count > self.depth:
            raise ValueError(f"{count} surgery blocks, but the tower has {self.depth}")
        return range(self.depth - count, self.depth)

    def _second_path(
        self, outputs: Mapping[int, Tensor], last: BlockReader, readout: DualPath
    ) -> Tensor:
        """Patch tokens of CLIP-Surgery from the ordinary stream; ``outputs[-1]`` starts it."""
        blocks = self._blocks_of(readout)
        if not blocks:
            return last.ordinary()[:, 1:]
        path = outputs[blocks[0] - 1][:, 1:]
        for index in blocks:
            is_last = index == self.depth - 1
            reader = last if is_last else BlockReader(self.blocks[index], outputs[index - 1])
            path = path + reader.attention(readout.attention)
        return path


def _check_readable(visual: Any) -> None:
    if not isinstance(visual, VisionTransformer):
        raise ValueError(
            f"{type(visual).__name__} is not an open_clip vision transformer; "
            "dense readouts need an OpenAI-style ViT such as 'ViT-B-16-quickgelu'"
        )
    wrong = {
        "attention pooling": visual.attn_pool is not None,
        f"pool_type={visual.pool_type!r}": visual.pool_type != "tok",
        "final_ln_after_pool": visual.final_ln_after_pool,
        "no_ln_pre": isinstance(visual.ln_pre, nn.Identity),
        "no projection": visual.proj is None,
        "another kind of attention": not has_plain_attention(visual.transformer.resblocks),
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ValueError(
            f"dense readouts are not defined for a ViT with {', '.join(found)}; take one like that "
            "of 'ViT-B-16-quickgelu'"
        )


def build_image_tower(arch: Arch, positions: str = "legacy") -> OpenCLIPViT:
    """The image tower of ``arch`` with random weights; nothing is downloaded.

    Args:
        arch: An open_clip config name (``'ViT-B-16-quickgelu'``) or a dict of the same form.
        positions: Resampling rule of the position table.

    Raises:
        ValueError: for an unknown name or a tower without dense readouts.
    """
    config = model_config(arch)
    if "timm_model_name" in config["vision_cfg"]:
        raise ValueError(
            f"arch {arch!r} has a timm image tower; supported are OpenAI-style ViTs such as "
            "'ViT-B-16-quickgelu'"
        )
    visual = _build_vision_tower(
        config["embed_dim"],
        open_clip.CLIPVisionCfg(**config["vision_cfg"]),
        config.get("quick_gelu", False),
    )
    return OpenCLIPViT(visual, positions)


def build_text_transformer(arch: Arch) -> TextTransformer:
    """The text tower of ``arch`` with random weights; nothing is downloaded.

    Raises:
        ValueError: for an unknown name or a text tower from another library.
    """
    config = model_config(arch)
    if config["text_cfg"].get("hf_model_name"):
        raise ValueError(f"arch {arch!r} has a Hugging Face text tower, which is not supported")
    return _build_text_tower(
        config["embed_dim"],
        open_clip.CLIPTextCfg(**config["text_cfg"]),
        config.get("quick_gelu", False),
    )
