"""What a detector's backbone on a frozen CLIP does with it, whatever tower it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule


class FrozenCLIP(BaseModule):
    """Holds an :attr:`encoder` without gradients that stays in evaluation mode."""

    encoder: Any

    def train(self, mode: bool = True) -> FrozenCLIP:
        """As always, but the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    @property
    def embed_dim(self) -> int:
        """Channels ``D`` of the joint image-text space."""
        return self.encoder.embed_dim  # type: ignore[no-any-return]

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch or, of a ResNet, of a location of the last stage."""
        return self.encoder.patch_size[0]  # type: ignore[no-any-return]

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _refuse_options(
        self, config: Mapping[str, Any], decided: Sequence[str], reason: str
    ) -> None:
        """Refuse options of the encoder that the backbone decides."""
        taken = [name for name in decided if name in config]
        if taken:
            raise ValueError(
                f"{self._name}.encoder must not set {', '.join(taken)}: the encoder is frozen, and "
                f"{reason}; remove them"
            )
