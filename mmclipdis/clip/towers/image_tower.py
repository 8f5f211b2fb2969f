"""What every image tower of CLIP does alike: the protocol that returns :class:`DenseFeatures`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmclipdis.clip.towers.affinity import Guide
from mmclipdis.clip.towers.attention import recomputed, run_blocks
from mmclipdis.clip.towers.block_reader import BlockReader
from mmclipdis.clip.towers.blocks import view_of
from mmclipdis.clip.towers.branches import NO_TOKENS, Beside, merged_once, read_branches, run_beside
from mmclipdis.clip.towers.features import DenseFeatures, tokens_to_map
from mmclipdis.clip.towers.pools import CLS_POOL, Pool
from mmclipdis.clip.towers.positions import NAFLEX, check_position_rule, resample_positions
from mmclipdis.clip.towers.readout import AnyReadout, DualPath, Readout
from mmclipdis.clip.towers.scclip import calibrated
from mmclipdis.clip.towers.self_calibrated import SelfCalibrated
from mmclipdis.clip.weights.readout_mark import describe_readout
from mmclipdis.utils.interpolation import known_size


class ImageTower(nn.Module, ABC):
    """An image tower of transformer blocks in the space of text, at any size, square or not.

    A kind of tower says where its stem, blocks and head are; all else stands here.

    Args:
        visual: The library's own module, which holds every weight (``visual.*``).
        positions: Resampling rule of the position table, see
            :mod:`mmclipdis.clip.towers.positions`.
        image_size: Native (height, width) in pixels.
        patch_size: (height, width) in pixels.
        embed_dim: Channels of the joint space.
        width: Channels of the blocks.
        prefix: Tokens before the patches.
        pool: How the image embedding is made of tokens, and a patch gets into its space.

    Attributes:
        width: Channels ``D`` of the blocks.
        embed_dim: Channels ``E`` of the dense map in the joint space.
        prefix: Tokens ``p`` before the patches: CLS, then registers; 0 without CLS.
        table_prefix: Rows of the position table that belong to them, ``p`` or 0.
        pool: See :mod:`mmclipdis.clip.towers.pools`.
        depth: Number of blocks.
        heads: Attention heads.
        patch_size: (height, width) in pixels.
        image_size: Native (height, width) in pixels.
        grad_checkpointing: Recompute the blocks, the reading of the last one too, in the backward
            pass.
    """

    def __init__(
        self,
        visual: nn.Module,
        positions: str,
        image_size: tuple[int, int],
        patch_size: tuple[int, int],
        embed_dim: int,
        width: int,
        prefix: int = 1,
        pool: Pool = CLS_POOL,
    ) -> None:
        super().__init__()
        self.visual: Any = visual
        self.positions = check_position_rule(positions)
        self.prefix = self.table_prefix = prefix
        self.pool = pool
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.patch_size = (int(patch_size[0]), int(patch_size[1]))
        self.embed_dim = int(embed_dim)
        self.width = int(width)
        self.depth = len(self.blocks)
        self.heads = view_of(self.blocks[0]).heads
        self.grad_checkpointing = False

    @property
    def image_dim(self) -> int:
        """Channels of the image embedding: ``E``, twice that for dino.txt."""
        return self.pool.parts * self.embed_dim

    @property
    @abstractmethod
    def blocks(self) -> Any:
        """The residual blocks, first to last."""

    @property
    @abstractmethod
    def stem(self) -> nn.Module:
        """The module that images enter by."""

    @property
    @abstractmethod
    def position_table(self) -> Tensor | None:
        """Position embeddings ``(p + N, D)`` of the native grid, those of prefix tokens first.

        ``(N, D)`` where prefix tokens have none (:attr:`table_prefix` is 0); None without a table.
        """

    @property
    @abstractmethod
    def prefix_tokens(self) -> Tensor:
        """CLS and registers before positions, ``(p, D)``."""

    @abstractmethod
    def patches(self, images: Tensor) -> Tensor:
        """The patch convolution, ``(B, 3, H, W)`` to ``(B, D, h, w)``; its type is the stream's."""

    @abstractmethod
    def norm_pre(self, tokens: Tensor) -> Tensor:
        """What lies between positions and first block."""

    @abstractmethod
    def norm_post(self, tokens: Tensor) -> Tensor:
        """The final norm of every token, ``(B, L, D)`` to ``(B, L, D)``."""

    @abstractmethod
    def head(self, tokens: Tensor) -> Tensor:
        """The last projection, ``(B, n, C)`` to ``(B, n, E)``: of normed tokens, or pooled ones."""

    def project(self, tokens: Tensor, terms: str = "identity") -> Tensor:
        """What stands behind :meth:`norm_post`, ``(B, n, D)`` to ``(B, n, E)``.

        Args:
            tokens: Normed tokens of patches.
            terms: ``pool_attention`` of a readout.
        """
        return self.pool.project(self, tokens, terms)

    def to_joint(self, tokens: Tensor) -> Tensor:
        """Final norm and projection of every token: ``(B, n, D)`` to ``(B, n, E)``."""
        return self.project(self.norm_post(tokens))

    @abstractmethod
    def joint_parameters(self) -> list[nn.Parameter]:
        """The parameters that only the map in the joint space and the image embedding read."""

    def rope(self, images: Tensor) -> Tensor | None:
        """Rotary table of the patches of ``images``, for a tower that has rotary positions."""
        return None

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Patch grid (h, w) of ``images``: remainders right and below are cut off.

        Raises:
            ValueError: if a side is shorter than a patch, or no whole patches under NaFlex, whose
                images are always resized to some.
        """
        size = (known_size(images.shape[-2]), known_size(images.shape[-1]))
        grid = (size[0] // self.patch_size[0], size[1] // self.patch_size[1])
        whole = (grid[0] * self.patch_size[0], grid[1] * self.patch_size[1])
        if self.positions == NAFLEX and 0 not in grid and size != whole:
            raise ValueError(
                f"image or crop of {size[0]} x {size[1]} px is no whole patches of "
                f"{self.patch_size[0]} x {self.patch_size[1]} px, which positions={NAFLEX!r} "
                f"(NaFlex) wants; resize or pad it, to {whole[0]} x {whole[1]} px for example"
            )
        if 0 in grid:
            raise ValueError(
                f"image or crop of {size[0]} x {size[1]} px is smaller than one patch of "
                f"{self.patch_size[0]} x {self.patch_size[1]} px; use a larger crop or resize"
            )
        return grid

    @property
    def native_grid(self) -> tuple[int, int]:
        """Patches (h, w) of an image of the native size, which the position table is for."""
        height, width = (size // side for size, side in zip(self.image_size, self.patch_size))
        return height, width

    def embed(self, images: Tensor) -> Tensor:
        """Patch and prefix tokens with positions, input of the first block: ``(B, p + h*w, D)``."""
        grid = self.grid_of(images)
        x = self.patches(images).flatten(2).transpose(1, 2)  # (B, h*w, D)
        table = self.position_table
        if table is not None:
            native, prefix = self.native_grid, self.table_prefix
            table = resample_positions(table, native, grid, self.positions, prefix).to(x.dtype)
        if table is not None and not self.table_prefix:
            x = x + table
        if self.prefix:
            first = self.prefix_tokens.to(x.dtype).expand(images.shape[0], -1, -1)
            x = torch.cat([first, x], dim=1)
        return self.norm_pre(x + table if table is not None and self.table_prefix else x)

    def encode_image(self, images: Tensor) -> Tensor:
        """The image embedding ``(B, image_dim)``, not normalised, at any image size."""
        rope = self.rope(images)
        x, _ = self._run(self.blocks[:-1], self.embed(images), (), rope)
        return self._image_embedding(self._read(self.blocks[-1], x, rope))

    def _read(
        self,
        block: nn.Module,
        x: Tensor,
        rope: Tensor | None,
        grid: tuple[int, int] | None = None,
    ) -> BlockReader:
        return BlockReader(block, x, rope, grid, self.prefix)

    def _image_embedding(self, last: BlockReader) -> Tensor:
        """Of the ordinary last block: by a single query where it is that of CLS."""
        tokens = last.cls() if self.pool.reads_cls_alone else last.ordinary()
        return self.pool.pooled(self, tokens)

    def forward_dense(
        self,
        images: Tensor,
        readout: AnyReadout,
        *,
        intermediates: Sequence[int] = (),
        context: Sequence[str] = (),
        with_cls: bool = False,
        with_tokens: bool = False,
        guide: Guide | None = None,
    ) -> DenseFeatures:
        """Dense features; only what is asked for is computed.

        Args:
            images: ``(B, 3, H, W)`` normalised RGB.
            readout: How the last block (or, for :class:`DualPath` and :class:`SelfCalibrated`, the
                last blocks) is read.
            intermediates: 0-based blocks whose outputs are wanted; negative counts from the end.
            context: Which of ``q``, ``k``, ``v`` of the last block are wanted.
            with_cls: Whether the image embedding is wanted (that of ordinary CLIP).
            with_tokens: Whether the tokens that the map is the projection of are wanted.
            guide: What the affinity of the readout is made of; the map has its grid.

        Raises:
            ValueError: for an image smaller than a patch, a block that does not exist, an affinity
                without a guide, or the tokens of a map that is a sum of several.
        """
        keep = [self._block_index(i) for i in intermediates]
        read_too = self._outputs_of(readout)
        readout, guide = merged_once(readout, guide)
        branches = getattr(readout, "branches", None)
        if with_tokens and branches is not None:
            raise ValueError(NO_TOKENS)
        rope, embedded, grid = self.rope(images), self.embed(images), self.grid_of(images)
        regions = guide.regions if guide else None
        beside = Beside.of(branches, self.depth, embedded, regions, grid)
        blocks, keep_too = self.blocks[:-1], [*keep, *read_too]
        x, kept, beside = run_beside(
            blocks, embedded, beside, keep_too, self.grad_checkpointing, rope
        )
        kept[-1] = embedded
        map_grid = grid if guide is None else guide.grid
        terms = getattr(readout, "pool_attention", "identity")

        def read(x: Tensor) -> DenseFeatures:
            last = self._read(self.blocks[-1], x, rope, grid)
            blocks = {**kept, self.depth - 1: last.ordinary()} if self.depth - 1 in keep else kept
            tokens: Tensor | None = None
            if isinstance(readout, Readout):
                layers = [self._reader(index, kept, last) for index in self._blocks_of(readout)]
                if readout.branches is None:
                    tokens = last.patches(readout, guide, layers)
                    for index in self._read_before_last(readout):
                        tokens = tokens + self._reader(index, kept, last).patches(readout)
                else:
                    summed = read_branches(last, readout, guide, layers, beside, self.norm_post)
            elif isinstance(readout, SelfCalibrated):
                tokens = self._calibrated(kept, last, readout)
            else:
                tokens = self._second_path(kept, last, readout)
            normed = summed if tokens is None else self.norm_post(tokens)
            projected = last.parts(context)
            return DenseFeatures(
                map=tokens_to_map(self.project(normed, terms), map_grid),
                cls=self._image_embedding(last) if with_cls else None,
                context={name: self._patch_map(part, grid) for name, part in projected.items()},
                intermediates=tuple(self._patch_map(blocks[i], grid) for i in keep),
                tokens=tokens_to_map(tokens, map_grid)
                if with_tokens and tokens is not None
                else None,
            )

        return recomputed(read, x) if self.grad_checkpointing else read(x)

    def forward_blocks(self, images: Tensor, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Outputs ``(B, D, h, w)`` of the named blocks; blocks after the last one are not run."""
        grid = self.grid_of(images)
        keep = [self._block_index(i) for i in indices]
        blocks = self.blocks[: max(keep) + 1]
        _, kept = self._run(blocks, self.embed(images), keep, self.rope(images))
        return tuple(self._patch_map(kept[i], grid) for i in keep)

    def _patch_map(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """The patches of tokens ``(B, p + N, D)`` as a map ``(B, D, h, w)``."""
        return tokens_to_map(tokens[:, self.prefix :], grid)

    def _run(
        self, blocks: Iterable[nn.Module], x: Tensor, keep: Sequence[int], rope: Tensor | None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        return run_blocks(blocks, x, keep, self.grad_checkpointing, rope)

    def _block_index(self, index: int) -> int:
        if not -self.depth <= index < self.depth:
            raise ValueError(f"block {index} does not exist: the tower has {self.depth} blocks")
        return index % self.depth

    def check_readout(self, readout: AnyReadout) -> None:
        """Refuse a readout of blocks, or of a CLS token or a pool, that the tower does not have.

        Raises:
            ValueError: naming what is missing.
        """
        self._outputs_of(readout)
        if isinstance(readout, Readout):
            self.pool.check(readout.pool_attention)
            if readout.branches is not None:
                readout.branches.range_in(self.depth)
        if readout.needs_cls and self.prefix == 0:
            raise ValueError(
                f"readout {describe_readout(readout)} needs the CLS token, and a tower pooled by "
                "attention over its patches has none: choose another, such as 'maskclip', 'csa' "
                "or 'clearclip'"
            )

    def _outputs_of(self, readout: AnyReadout) -> list[int]:
        """The blocks whose outputs a readout reads; -1 is what enters the first one."""
        if isinstance(readout, SelfCalibrated):
            return [self._block_index(index) for index in readout.blocks_read]
        before = self._read_before_last(readout) if isinstance(readout, Readout) else ()
        return [index - 1 for index in (*self._blocks_of(readout), *before)]

    def _read_before_last(self, readout: Readout) -> Sequence[int]:
        """The blocks before the last that are read like it.

        Raises:
            ValueError: the tower has fewer.
        """
        if readout.last_blocks > self.depth:
            raise ValueError(
                f"Readout.last_blocks={readout.last_blocks}, but the tower has {self.depth} blocks"
            )
        return range(self.depth - readout.last_blocks, self.depth - 1)

    def _blocks_of(self, readout: Readout | DualPath) -> Sequence[int]:
        """The blocks that a readout reads beside the ordinary stream, by their inputs."""
        if isinstance(readout, Readout):
            return [self._block_index(index) for index in readout.layers]
        if readout.blocks > self.depth:
            raise ValueError(f"{readout.blocks} surgery blocks, but the tower has {self.depth}")
        return range(self.depth - readout.blocks, self.depth)

    def _reader(self, index: int, outputs: Mapping[int, Tensor], last: BlockReader) -> BlockReader:
        """The reader of a block at the ordinary stream; ``outputs[-1]`` starts it."""
        if index == self.depth - 1:
            return last
        return self._read(self.blocks[index], outputs[index - 1], last.rope, last.grid)

    def _second_path(
        self, outputs: Mapping[int, Tensor], last: BlockReader, readout: DualPath
    ) -> Tensor:
        """Patch tokens of CLIP-Surgery from the ordinary stream."""
        blocks = self._blocks_of(readout)
        if not blocks:
            return last.ordinary()[:, self.prefix :]
        path = outputs[blocks[0] - 1][:, self.prefix :]
        for index in blocks:
            path = path + self._reader(index, outputs, last).attention(readout.attention)
        return path

    def _calibrated(
        self, outputs: Mapping[int, Tensor], last: BlockReader, readout: SelfCalibrated
    ) -> Tensor:
        """Patch tokens of SC-CLIP from the ordinary stream."""

        def output(index: int) -> Tensor:
            index = self._block_index(index)
            return last.ordinary() if index == self.depth - 1 else outputs[index]

        deep, mid, *summed = (output(index) for index in readout.blocks_read)
        total = torch.stack(summed).sum(dim=0)
        grid = cast(tuple[int, int], last.grid)
        return calibrated(last.view, last.x, deep, mid, total, grid, readout, self.prefix)
