"""What backbones of CLIP towers of stages share: a pyramid of maps, and what is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.clip.towers.features import DenseFeatures
from mmclipdis.models.backbones import CLIPBackbone


class StageBackbone(CLIPBackbone):
    """A backbone whose tower has stages; ``out_indices`` are these and ``'map'``.

    Subclasses end their constructor with :meth:`_finish`.
    """

    #: What the tower is, for messages.
    kind: str
    out_indices: tuple[int | str, ...]
    trainable: tuple[str, ...]

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of the stages."""
        return self.tower.stage_widths  # type: ignore[no-any-return]

    def dense(
        self, images: Tensor, *, intermediates: Sequence[int] = (), with_cls: bool = False
    ) -> DenseFeatures:
        """Dense features of normalised RGB images ``(B, 3, H, W)``; see the tower's protocol."""
        features: DenseFeatures = self.tower.forward_dense(
            images,
            self.readout,
            intermediates=intermediates,
            with_cls=with_cls,
            **self._dense_options(),
        )
        if not self.normalize:
            return features
        mean = features.mean_token
        return replace(
            features,
            map=F.normalize(features.map, dim=1),
            mean_token=None if mean is None else F.normalize(mean, dim=1),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps named by ``out_indices``, in their order."""
        stages = [index for index in self.out_indices if isinstance(index, int)]
        if "map" not in self.out_indices:
            return self.tower.forward_stages(images, stages)  # type: ignore[no-any-return]
        features = self.dense(images, intermediates=stages)
        maps = iter(features.intermediates)
        return tuple(next(maps) if isinstance(i, int) else features.map for i in self.out_indices)

    def _dense_options(self) -> Mapping[str, Any]:
        """What this tower alone is asked for."""
        return {}

    def _unread_of_the_map(self) -> Sequence[nn.Module]:
        """Those parts of it that the map is made without."""
        return ()

    def _finish(self, out_indices: Sequence[int | str], trainable: Sequence[str]) -> None:
        """Take the outputs and what is trained; freeze what :meth:`forward` never reads.

        Raises:
            ValueError: for an unknown output or part.
        """
        self.out_indices = self._checked_out_indices(out_indices)
        self.trainable = tuple(trainable)
        if self.trainable not in ((), ("all",)):
            raise ValueError(
                f"{type(self).__name__}.trainable={self.trainable}: choose () or ('all',); "
                f"{self.kind} has no transformer blocks whose parts could be trained"
            )
        self.requires_grad_(bool(self.trainable))
        unread = [*self._unread_of_the_map()]
        if "map" not in self.out_indices:
            stages = self.tower.stages
            last = max(i % len(stages) for i in self.out_indices if isinstance(i, int))
            unread = [*self.tower.joint_modules(), *stages[last + 1 :]]
        for module in unread:
            module.requires_grad_(False)
        self.train(self.training)  # BatchNorms follow what is frozen
        self._watch_weights()

    def _checked_out_indices(self, out_indices: Sequence[int | str]) -> tuple[int | str, ...]:
        count = len(self.tower.stages)
        for index in out_indices:
            if index != "map" and not (isinstance(index, int) and -count <= index < count):
                raise ValueError(
                    f"out_indices={tuple(out_indices)}: {index!r} is neither 'map' nor a stage of "
                    f"{self.kind}, 0 to {count - 1}"
                )
        if not out_indices:
            raise ValueError("out_indices is empty: name stages or 'map'")
        return tuple(out_indices)
