"""Image towers of stages and an average pool: FastViT (MobileCLIP S) and ConvNeXt.

They end in no attention whose output a readout could change, so the dense map is the head at every
location of the last stage ``F``, and there is one way to read it. The two heads differ in when they
pool, thus in what the map has to do with the image embedding ``e``::

    FastViT     map = W F + b                 e = W mean(F) + b = mean(map)
    ConvNeXt    map = head(norm(F))           e = head(norm(mean(F))), not the mean of the map

``head`` is open_clip's, a linear layer or two. (FC-CLIP reads ConvNeXt so; encoders spec 3.9.)
Everything up to ``F`` is timm's own code, at any image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import NormMlpClassifierHead
from timm.models.fastvit import FastVit
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmclipdis.clip.towers.features import DenseFeatures
from mmclipdis.clip.towers.readout import READOUTS, AnyReadout
from mmclipdis.clip.towers.stage_trunks import build_stage_visual, check_stages
from mmclipdis.clip.weights.loading import Arch
from mmclipdis.clip.weights.readout_mark import describe_readout


class StageTower(nn.Module):
    """A FastViT or a ConvNeXt of CLIP held by open_clip, at any size, square or not.

    Its BatchNorms stay in eval mode, whatever :meth:`train` says, as long as they are frozen or
    :attr:`norm_eval` is true; a tower that is frozen as a whole has no stochastic depth, either.

    Args:
        visual: open_clip's ``TimmModel``, which holds every weight (``visual.trunk.*``,
            ``visual.head.*``).
        norm_eval: Never use or collect statistics of a batch.

    Attributes:
        width: Channels ``D`` that the head reads; FastViT's last convolution, behind its stages,
            doubles those of the last stage.
        stage_widths: Channels of the stages.
        stage_strides: Pixels a location of the stages: 4, 8, 16, 32 and, in MobileCLIP2-S3 and
            -S4, 64.
        embed_dim: Channels ``E`` of the joint space.
        image_size: Native (height, width) in pixels.
        patch_size: Pixels a location of the map, (height, width).

    Raises:
        ValueError: for another trunk or a head that pools otherwise.
    """

    def __init__(self, visual: nn.Module, norm_eval: bool = True) -> None:
        check_stages(visual)
        super().__init__()
        adapter: Any = visual
        trunk = adapter.trunk
        self.visual: Any = visual
        self.norm_eval = norm_eval
        self.width = int(trunk.num_features)
        self.stage_widths = tuple(int(stage["num_chs"]) for stage in trunk.feature_info)
        self.stage_strides = tuple(int(stage["reduction"]) for stage in trunk.feature_info)
        modules = (*trunk.head.modules(), *adapter.head.modules())
        self.embed_dim = [int(m.out_features) for m in modules if isinstance(m, nn.Linear)][-1]
        self.image_size: tuple[int, int] = tuple(adapter.image_size)
        self.patch_size = (self.stage_strides[-1], self.stage_strides[-1])
        self.train(self.training)

    @property
    def stem(self) -> nn.Module:
        """The first convolutions, of stride 4."""
        return self.visual.trunk.stem  # type: ignore[no-any-return]

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The stages behind the stem."""
        return tuple(self.visual.trunk.stages)

    def joint_modules(self) -> tuple[nn.Module, ...]:
        """What stands between the last stage and the joint space."""
        trunk = self.visual.trunk
        closing = trunk.final_conv if isinstance(trunk, FastVit) else trunk.norm_pre
        return closing, trunk.head, self.visual.head

    def train(self, mode: bool = True) -> StageTower:
        """``nn.Module.train``, except for what is frozen, see the class."""
        learns = any(parameter.requires_grad for parameter in self.parameters())
        super().train(mode and learns)
        self.training = mode
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                own = module.weight.requires_grad
                module.train(mode and not self.norm_eval and own)
        return self

    def encode_image(self, images: Tensor) -> Tensor:
        """CLIP's image embedding ``(B, E)``, not normalised, at any image size."""
        (last,) = self._stages_of(images, (-1,))
        return self._pooled(self._closed(last))

    def forward_stages(self, images: Tensor, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Outputs ``(B, D_i, h_i, w_i)`` of the named stages; later ones are not run.

        Args:
            images: ``(B, 3, H, W)`` normalised RGB. Sides that are no whole locations give what
                timm gives: one location more of a FastViT, none of a ConvNeXt.
            indices: Stages from 0; negative counts from the end.

        Raises:
            ValueError: for a stage that does not exist or an image smaller than one location of
                the last stage.
        """
        # timm's norms leave channels last in memory, which compiled ops do not look at
        return tuple(stage.contiguous() for stage in self._stages_of(images, indices))

    def forward_dense(
        self,
        images: Tensor,
        readout: AnyReadout,
        *,
        intermediates: Sequence[int] = (),
        with_cls: bool = False,
    ) -> DenseFeatures:
        """Dense features of one pass.

        Args:
            images: ``(B, 3, H, W)`` normalised RGB.
            readout: ``vanilla``, see :func:`check_stage_readout`.
            intermediates: Stages whose outputs are wanted, as in :meth:`forward_stages`.
            with_cls: Whether the image embedding is wanted.

        Raises:
            ValueError: as :meth:`forward_stages` and :func:`check_stage_readout`.
        """
        check_stage_readout(readout)
        *kept, last = self._stages_of(images, (*intermediates, -1))
        closed = self._closed(last)
        return DenseFeatures(
            map=self._project(closed),
            cls=self._pooled(closed) if with_cls else None,
            intermediates=tuple(stage.contiguous() for stage in kept),
        )

    def _stages_of(self, images: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """:meth:`forward_stages`, laid out in memory as timm does: its pool adds up in that order.

        Raises:
            ValueError: as there.
        """
        count, stride = len(self.stages), self.patch_size[0]
        if any(side < stride for side in images.shape[-2:]):
            height, width = images.shape[-2:]
            raise ValueError(
                f"image or crop of {height} x {width} px is smaller than {stride} x {stride} px, "
                "one location of the tower's last stage; use a larger crop or resize"
            )
        wrong = [index for index in indices if not -count <= index < count]
        if wrong:
            raise ValueError(
                f"stage {wrong[0]} does not exist: the tower has stages 0 to {count - 1}"
            )
        keep = [index % count for index in indices]
        x, kept = self.visual.trunk.stem(images), {}
        for index, stage in enumerate(self.stages[: max(keep) + 1]):
            x = stage(x)
            if index in keep:
                kept[index] = x
        return [kept[index] for index in keep]

    def _closed(self, last: Tensor) -> Tensor:
        """The last stage's output ``(B, D_i, h, w)`` as the head reads it: ``(B, D, h, w)``."""
        return self.joint_modules()[0](last)  # type: ignore[no-any-return]

    def _pooled(self, closed: Tensor) -> Tensor:
        """The image embedding ``(B, E)``, as in open_clip."""
        return self.visual.head(self.visual.trunk.head(closed))  # type: ignore[no-any-return]

    def _project(self, closed: Tensor) -> Tensor:
        """The head at every location: ``(B, D, h, w)`` to ``(B, E, h, w)``."""
        head = self.visual.trunk.head
        normed = isinstance(head, NormMlpClassifierHead)
        rows = (head.norm(closed) if normed else closed).permute(0, 2, 3, 1)
        rows = head.pre_logits(rows) if normed else rows
        joint: Tensor = self.visual.head(head.fc(rows))
        return joint.permute(0, 3, 1, 2).contiguous()


def check_stage_readout(readout: AnyReadout) -> None:
    """Raise ValueError for another readout than ``vanilla``: there is no attention to change."""
    if readout != READOUTS["vanilla"]:
        raise ValueError(
            f"readout {describe_readout(readout)} needs attention in the last layer: a FastViT "
            "(MobileCLIP S) or ConvNeXt ends in convolutions and has only 'vanilla', its head at "
            "every location"
        )


def build_stage_tower(arch: Arch, norm_eval: bool = True) -> StageTower:
    """The FastViT or ConvNeXt of ``arch`` with random weights; nothing is downloaded.

    Args:
        arch: An open_clip config name (``'MobileCLIP-S1'``, ``'convnext_base_w'``) or a dict of
            the same form. Its ``vision_cfg`` may change the layers of the trunk by
            ``timm_model_kwargs``, such as ``dict(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64))``.
        norm_eval: As in :class:`StageTower`.

    Raises:
        ValueError: for an unknown name or an arch with another kind of tower.
    """
    return StageTower(build_stage_visual(arch), norm_eval)
