"""CLIP's ResNet with dense features: its attention pool, read at every location.

The pool sees ``X = [mean of F; F] + P``, the ``h*w`` locations of the last stage ``F`` behind their
mean, with positions. CLIP keeps the row of the mean of ``W_c attention(X) + b_c``. With the readout
``v`` every row is read without attention (MaskCLIP; DCLIP)::

    Z = W_c (W_v X + b_v) + b_c

two 1 x 1 convolutions in effect. Other readouts put their attention terms between the two, such as
``softmax(s v v^T) v`` for ``vv`` (CLIP-Surgery), for the mean token, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmclipdis.clip.towers.attention import attend, logit_factor, split_heads
from mmclipdis.clip.towers.features import DenseFeatures, tokens_to_map
from mmclipdis.clip.towers.positions import check_position_rule, resample_positions
from mmclipdis.clip.towers.readout import AnyReadout, Readout
from mmclipdis.clip.towers.stage_trunks import has_stages
from mmclipdis.clip.weights.loading import Arch, is_resnet, model_config
from mmclipdis.clip.weights.readout_mark import describe_readout

#: Pixels a location of the last stage; that of every CLIP ResNet.
STRIDE = 32


class CLIPResNetTower(nn.Module):
    """CLIP's ResNet held by open_clip, at any size, square or not.

    Its BatchNorms stay in eval mode, whatever :meth:`train` says, as long as they are frozen or
    :attr:`norm_eval` is true: frozen buffers would else follow the images.

    Args:
        visual: open_clip's ``ModifiedResNet``, which holds every weight (``visual.*``).
        positions: Resampling rule of the position table, see
            :mod:`mmclipdis.clip.towers.positions`; the reference code of DCLIP has ``size``,
            that of CLIP-Surgery ``bilinear``.
        norm_eval: Never use or collect statistics of a batch.

    Attributes:
        width: Channels ``D`` of the last stage and of the attention pool.
        stage_widths: Channels of the four stages, whose strides are 4, 8, 16 and 32.
        embed_dim: Channels ``E`` of the joint space.
        heads: Attention heads of the pool.
        image_size: Native (height, width) in pixels.
        patch_size: (32, 32), pixels a location.
    """

    def __init__(
        self, visual: ModifiedResNet, positions: str = "size", norm_eval: bool = True
    ) -> None:
        super().__init__()
        self.visual: Any = visual
        self.positions = check_position_rule(positions)
        self.norm_eval = norm_eval
        self.embed_dim, self.width = visual.attnpool.c_proj.weight.shape
        self.stage_widths = tuple(self.width // 2**i for i in (3, 2, 1, 0))
        self.heads = int(visual.attnpool.num_heads)
        self.image_size = (int(visual.image_size), int(visual.image_size))
        self.patch_size = (STRIDE, STRIDE)
        self.train(self.training)

    @property
    def stem(self) -> nn.Module:
        """The first convolution."""
        return self.visual.conv1  # type: ignore[no-any-return]

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The four stages behind the stem."""
        return tuple(getattr(self.visual, f"layer{i}") for i in (1, 2, 3, 4))

    def joint_modules(self) -> tuple[nn.Module, ...]:
        """What stands between the last stage and the joint space."""
        return (self.visual.attnpool,)

    def train(self, mode: bool = True) -> CLIPResNetTower:
        """``nn.Module.train``, except that frozen BatchNorms stay in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.train(mode and not self.norm_eval and module.weight.requires_grad)
        return self

    def encode_image(self, images: Tensor) -> Tensor:
        """CLIP's image embedding ``(B, E)``, not normalised, at any image size."""
        (last,) = self.forward_stages(images, (3,))
        tokens = self._pool_tokens(last)
        return self._image_embedding(tokens, self._project(tokens, "kv"))

    def pool_regions(self, features: Tensor) -> Tensor:
        """CLIP's embedding ``(n, E)``, not normalised, of maps of the last stage ``(n, D, h, w)``.

        As in :meth:`encode_image`, but meant for many small maps, such as regions of an image. With
        one query a head, its key and value matrices need not see every location::

            q_h W_k x_j = (q_h W_k) x_j    and    sum_j a_j W_v x_j = W_v (sum_j a_j x_j)

        The bias of the keys adds the same to all logits of a head, thus nothing to the softmax. For
        the 7 x 7 locations of RN50 that is a twentieth of the multiplications.
        """
        pool = self.visual.attnpool
        tokens = self._pool_tokens(features)
        query = pool.q_proj(tokens[:, 0]).unflatten(1, (self.heads, -1))  # (n, heads, d)
        query = query * logit_factor("sqrt", query.shape[-1])
        keys, values = (
            part.weight.unflatten(0, (self.heads, -1)) for part in (pool.k_proj, pool.v_proj)
        )
        asked = torch.einsum("nhd,hdc->nhc", query, keys)
        weights = (asked @ tokens.transpose(1, 2)).softmax(dim=-1)  # (n, heads, 1 + h*w)
        read = torch.einsum("nhc,hdc->nhd", weights @ tokens, values).flatten(1) + pool.v_proj.bias
        embeddings: Tensor = pool.c_proj(read)
        return embeddings

    def forward_stages(self, images: Tensor, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Outputs ``(B, D_i, h_i, w_i)`` of the named stages; later ones are not run.

        Args:
            images: ``(B, 3, H, W)`` normalised RGB.
            indices: Stages 0 to 3, of stride 4, 8, 16 and 32; negative counts from the end.

        Raises:
            ValueError: for a stage that does not exist or an image smaller than 32 px.
        """
        if any(side < STRIDE for side in images.shape[-2:]):
            height, width = images.shape[-2:]
            raise ValueError(
                f"image or crop of {height} x {width} px is smaller than {STRIDE} x {STRIDE} px, "
                "one location of a CLIP ResNet; use a larger crop or resize"
            )
        wrong = [index for index in indices if not -4 <= index <= 3]
        if wrong:
            raise ValueError(f"stage {wrong[0]} does not exist: a CLIP ResNet has stages 0 to 3")
        keep = [index % 4 for index in indices]
        x, kept = self.visual.stem(images), {}
        for index, stage in enumerate(self.stages[: max(keep) + 1]):
            x = stage(x)
            if index in keep:
                kept[index] = x
        return tuple(kept[index] for index in keep)

    def forward_dense(
        self,
        images: Tensor,
        readout: AnyReadout,
        *,
        intermediates: Sequence[int] = (),
        with_cls: bool = False,
        mean_token: bool = False,
    ) -> DenseFeatures:
        """Dense features; only the projections that are read are computed.

        Args:
            images: ``(B, 3, H, W)`` normalised RGB.
            readout: How the attention pool is read, see :func:`check_pool_readout`.
            intermediates: Stages whose outputs are wanted, as in :meth:`forward_stages`.
            with_cls: Whether the image embedding is wanted (that of ordinary CLIP).
            mean_token: Whether the mean token is wanted, read out like the map.

        Raises:
            ValueError: for an image smaller than 32 px, a stage that does not exist, or a readout
                that an attention pool does not have.
        """
        readout = check_pool_readout(readout)
        *kept, last = self.forward_stages(images, (*intermediates, 3))
        tokens = self._pool_tokens(last)
        names = {*readout.parts, "k"} if with_cls else set(readout.parts)
        parts = self._project(tokens, sorted(names))
        factor = logit_factor(readout.scale, self.width // self.heads)
        rows = self._merge(attend(readout.attention, parts, factor, factors=readout.factors))
        return DenseFeatures(
            map=tokens_to_map(rows[:, 1:], (last.shape[2], last.shape[3])),
            cls=self._image_embedding(tokens, parts) if with_cls else None,
            intermediates=tuple(kept),
            mean_token=rows[:, 0] if mean_token else None,
        )

    def _pool_tokens(self, last: Tensor) -> Tensor:
        """``X`` of the last stage's output ``(B, D, h, w)``: ``(B, 1 + h*w, D)``, mean first."""
        locations = last.flatten(2).transpose(1, 2)
        tokens = torch.cat([locations.mean(dim=1, keepdim=True), locations], dim=1)
        table = self.visual.attnpool.positional_embedding
        native = (self.image_size[0] // STRIDE, self.image_size[1] // STRIDE)
        grid = (last.shape[2], last.shape[3])
        return tokens + resample_positions(table, native, grid, self.positions).to(tokens.dtype)

    def _project(self, tokens: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The asked ones of q, k, v, each ``(B, heads, L, d)``."""
        pool = self.visual.attnpool
        return {n: split_heads(getattr(pool, f"{n}_proj")(tokens), self.heads) for n in names}

    def _merge(self, heads: Tensor) -> Tensor:
        """``(B, heads, L, d)`` to the joint space, ``(B, L, E)``."""
        out: Tensor = self.visual.attnpool.c_proj(heads.transpose(1, 2).flatten(2))
        return out

    def _image_embedding(self, tokens: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """The row of the mean token under ordinary attention ``(B, E)``, by a single query."""
        query = parts["q"][:, :, :1] if "q" in parts else self._project(tokens[:, :1], "q")["q"]
        factor = logit_factor("sqrt", query.shape[-1])
        return self._merge(attend(("qk",), {**parts, "q": query}, factor))[:, 0]


def check_pool_readout(readout: AnyReadout) -> Readout:
    """Return ``readout`` if the attention pool of a ResNet can be read so.

    Raises:
        ValueError: for one with a residual or feed-forward branch, or with a second path: the pool
            is one layer of attention and nothing else.
    """
    if isinstance(readout, Readout) and readout.residual == "none" and not readout.ffn:
        beyond = [name for name in ("neighbours", "layers", "affinity") if getattr(readout, name)]
        beyond += ["the term gem"] if "gem" in readout.attention else []
        beyond += ["last_blocks"] if readout.last_blocks > 1 else []
        if beyond:
            raise ValueError(
                f"readout {describe_readout(readout)} has {beyond[0]}, which the attention pool of "
                "a CLIP ResNet has not been read with; leave it out, or take a ViT"
            )
        return readout
    raise ValueError(
        f"readout {describe_readout(readout)} needs transformer blocks: the attention pool of a "
        "CLIP ResNet has no residual, no feed-forward branch and no block before it; choose 'v', "
        "'vv', 'qq', 'kk', 'csa', 'all' or 'qk'"
    )


def build_resnet_tower(
    arch: Arch, positions: str = "size", norm_eval: bool = True
) -> CLIPResNetTower:
    """The ResNet of ``arch`` with random weights; nothing is downloaded.

    Args:
        arch: An open_clip config name (``'RN50-quickgelu'``, ``'RN101-quickgelu'``) or a dict of
            the same form, whose ``vision_cfg.layers`` are the blocks of the four stages.
        positions: As in :class:`CLIPResNetTower`.
        norm_eval: As in :class:`CLIPResNetTower`.

    Raises:
        ValueError: for an unknown name or an arch with another kind of tower.
    """
    config = model_config(arch)
    if not is_resnet(config):
        other = "CLIPConvNet" if has_stages(config) else "CLIPViT"
        raise ValueError(
            f"arch {arch!r} has no ResNet of CLIP; use the backbone {other} for it, or an arch "
            "such as 'RN50-quickgelu'"
        )
    vision = CLIPVisionCfg(**config["vision_cfg"])
    visual = _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))
    return CLIPResNetTower(visual, positions, norm_eval)
