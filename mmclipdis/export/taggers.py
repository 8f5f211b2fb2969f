"""Taggers as programs: from a normalised image to a probability and a logit for every class."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclipdis.models.recognition.pooling import pooled_logits, spatial_logits
from mmclipdis.models.score_scale import probabilities_of
from mmclipdis.utils.interpolation import by_products


class PooledTokens(nn.Module):
    """DCLIP, without its text tower and text projector.

    Args:
        model: A ``DCLIP`` that knows its classes and has its weights.
    """

    text: Tensor
    clip_text: Tensor | None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.project = model.encoder, model.projectors.image
        self.mean_token = model.mean_token
        self.options = (model.logit_temperature, model.logit_scale, model.pooling)
        self.register_buffer("text", model.class_features().detach().clone())
        decides = model.order == "pool_project"
        own = model.text.embeddings().detach().clone() if decides else None
        self.register_buffer("clip_text", own)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and logits (B, N) of normalised images (B, 3, H, W)."""
        dense = self.encoder.dense(image)
        tokens = dense.map.flatten(2).mT
        if self.mean_token and dense.mean_token is not None:
            tokens = torch.cat([dense.mean_token[:, None], tokens], dim=1)
        if self.clip_text is None:
            pairs = spatial_logits(self.project(tokens), self.text, *self.options)
        else:
            pairs = pooled_logits(tokens, self.clip_text, self.text, self.project, *self.options)
        negative, positive = pairs.unbind(1)
        logits = positive - negative
        return logits.sigmoid(), logits


class WholeCosines(nn.Module):
    """Zero-shot CLIP: the cosines of the image embedding with the table of texts.

    Args:
        model: A ``ZeroShotRecognizer`` without segments that knows its classes.
    """

    table: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.encoder.tower
        self.image_size, self.scale = model.image_size, model.logit_scale
        self.bias = model.logit_bias
        text = F.normalize(model.text.embeddings(), dim=1)
        self.register_buffer("table", text.detach().clone())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and logits (B, N) of normalised images (B, 3, H, W)."""
        if self.image_size is not None:
            image = by_products(image, self.image_size, "antialias")
        unit = F.normalize(self.tower.encode_image(image), dim=1)
        logits = self.scale * unit @ self.table.T
        return probabilities_of(logits, self.bias, dim=1), logits
