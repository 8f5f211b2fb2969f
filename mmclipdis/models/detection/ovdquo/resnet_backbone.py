"""OV-DQUO's backbone on a frozen CLIP ResNet: two levels, and regions through attention pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.models.clip_resnet import CLIPResNet
from mmclipdis.models.detection.frozen import FrozenCLIP
from mmclipdis.models.detection.ovdquo.region_prompt import RegionPrompt
from mmclipdis.models.detection.regions import check_rois, pool_boxes
from mmclipdis.utils.precision import at_least_fp32, without_autocast

#: Options of the encoder that the backbone decides itself.
_OWN_OPTIONS = (
    "out_indices",
    "trainable",
    "norm_eval",
    "readout",
    "positions",
    "normalize",
    "mean_token",
)

#: Regions at once: those of 1000 boxes, 14 x 14 x 1024 values each, fill 800 MB.
CHUNK = 128


@MODELS.register_module()
class OVDQUOResNetBackbone(FrozenCLIP):
    """Stages C3 and C4 of a frozen CLIP ResNet, and embeddings of regions of C4 and C5.

    The levels have stride 8 and 16; a neck adds the third of stride 32 (``ChannelMapper`` with
    ``num_outs=3``). With ``S`` the grid of the attention pool, 7 for RN50 and 9 for RN50x4, an
    embedding is

    - for queries: RoIAlign ``S x S`` of C5, plus the region prompt, through the attention pool;
    - for scores: RoIAlign ``2S x 2S`` of C4 through the last stage and the attention pool.

    The whole of it is frozen and in evaluation mode, BatchNorms too; regions are embedded in fp32,
    under autocast too.

    Args:
        encoder: Config of a :class:`~mmclipdis.models.clip_resnet.CLIPResNet` with ``arch``
            (``'RN50-quickgelu'``, ``'RN50x4-quickgelu'``), ``any_readout``, ``init_cfg``.
        region_prompt: File of CORA's region prompt ``(channels of C5, S, S)``, see
            :func:`~mmclipdis.models.detection.ovdquo.region_prompt.read_region_prompt`. None does
            without. Checkpoints hold it.
        prompt_scores: Whether scores are prompted, too. Published is the prompt of the queries; of
            the scores nothing is said.
        dense_map: Whether :meth:`forward` returns what regions are pooled from, too. False for
            stock detectors, whose necks take the levels alone.

    Input of :meth:`forward`: ``(B, 3, H, W)`` RGB with CLIP's mean and std taken off, both sides
    32 px or more.

    Raises:
        ValueError: for another kind of encoder, options of it that are decided here, or
            ``prompt_scores`` without a prompt.

    Source: OV-DQUO (AAAI 2025); CORA (CVPR 2023) for regions and prompts.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        region_prompt: str | None = None,
        prompt_scores: bool = False,
        dense_map: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = self._build_encoder(encoder)
        if prompt_scores and region_prompt is None:
            raise ValueError(
                f"{self._name}.prompt_scores=True needs a region_prompt; name its file"
            )
        self.region_prompt: RegionPrompt | None = None
        if region_prompt is not None:
            self.region_prompt = RegionPrompt(region_prompt, self.encoder.width, self.pool_grid)
        self.prompt_scores = prompt_scores
        self.dense_map = dense_map
        self.register_load_state_dict_pre_hook(_refuse_lost_prompt)
        self.train(self.training)  # all but the encoder

    @property
    def strides(self) -> tuple[float, ...]:
        """Pixels a location of the two levels."""
        return 8.0, 16.0

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Channels of the two levels, the neck's ``in_channels``: (512, 1024) for RN50."""
        return tuple(self.encoder.stage_widths[1:3])

    @property
    def pool_grid(self) -> int:
        """Locations ``S`` a side of the attention pool's native grid."""
        return int(self.encoder.tower.image_size[0]) // self.patch_size

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Any, ...]:
        """The levels, and what regions are pooled from.

        Args:
            images: ``(B, 3, H, W)``.

        Returns:
            C3 ``(B, C, H/8, W/8)`` and C4 ``(B, 2C, H/16, W/16)``, and then, with ``dense_map``, a
            tuple of C4 and C5 ``(B, 4C, H/32, W/32)``, fp32.

        Raises:
            ValueError: if a side has fewer than 32 px.
        """
        tower = self.encoder.tower
        if not self.dense_map:
            return tower.forward_stages(images, (1, 2))  # type: ignore[no-any-return]
        c3, c4, c5 = tower.forward_stages(images, (1, 2, 3))
        return c3, c4, (at_least_fp32(c4), at_least_fp32(c5))

    def query_embeddings(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Embeddings by which queries get their class, ``(n, D)`` unit vectors, fp32.

        Args:
            maps: Last output of :meth:`forward`.
            rois: ``(n, 5)``: number of the image, x0, y0, x1, y1 in pixels of the input.

        Returns:
            Zeros for a box that is wholly outside or has no area.

        Raises:
            ValueError: RoIs that are not (n, 5).
        """

        def embed(pooled: Tensor) -> Tensor:
            return self._embed(pooled, self.region_prompt)

        return self._in_chunks(maps[1], rois, self.patch_size, self.pool_grid, embed)

    def score_embeddings(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Embeddings by which boxes are classified in the end; else as :meth:`query_embeddings`."""

        def embed(pooled: Tensor) -> Tensor:
            last = self.encoder.tower.stages[3](pooled)
            return self._embed(last, self.region_prompt if self.prompt_scores else None)

        return self._in_chunks(maps[0], rois, self.patch_size // 2, 2 * self.pool_grid, embed)

    def _embed(self, features: Tensor, prompt: RegionPrompt | None) -> Tensor:
        if prompt is not None:
            features = prompt(features)
        embeddings: Tensor = self.encoder.tower.pool_regions(features)
        return F.normalize(at_least_fp32(embeddings), dim=1)

    @torch.no_grad()
    def _in_chunks(
        self, maps: Tensor, rois: Tensor, stride: int, size: int, embed: Callable[[Tensor], Tensor]
    ) -> Tensor:
        check_rois(rois)
        found = maps.new_zeros(len(rois), self.embed_dim, dtype=at_least_fp32(maps).dtype)
        weight = self.encoder.tower.stem.weight
        with without_autocast(maps):  # half-precision cosines tie
            for start in range(0, len(rois), CHUNK):
                pooled = pool_boxes(maps, rois[start : start + CHUNK], stride, size)
                seen = pooled.flatten(1).any(dim=1, keepdim=True)
                found[start : start + CHUNK] = embed(pooled.to(weight.dtype)) * seen
        return found

    def _build_encoder(self, config: Mapping[str, Any]) -> CLIPResNet:
        reason = "its stages and its attention pool are read as CLIP has them"
        self._refuse_options(config, _OWN_OPTIONS, reason)
        encoder = MODELS.build(dict(config))  # frozen, as no CLIPResNet trains unless it is told to
        if not isinstance(encoder, CLIPResNet):
            raise ValueError(
                f"{self._name}.encoder is a {type(encoder).__name__}, expected a CLIPResNet; "
                "OVDQUOViTBackbone takes a CLIPViT"
            )
        encoder.readout = READOUTS["qk"]  # that of pool_regions(), for marks of weights
        return encoder


def _refuse_lost_prompt(
    backbone: OVDQUOResNetBackbone, state: Mapping[str, Tensor], prefix: str, *_: object
) -> None:
    """Weights that were trained with a region prompt are worth little without it."""
    if backbone.region_prompt is None and f"{prefix}region_prompt.weight" in state:
        raise ValueError(
            f"the checkpoint holds a region prompt ({prefix}region_prompt.weight), the model has "
            "none: set region_prompt of its backbone to a file, whose values the checkpoint's "
            "replace"
        )
