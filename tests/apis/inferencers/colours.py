"""A segmentor of colours whose text encoder knows their words."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS

from mmclipdis.clip.text.vocabulary import Vocabulary
from tests.apis.inferencers.test_segment import NAMES, make_config


@MODELS.register_module()
class ColourWords(BaseModule):
    """A text encoder that knows the words of the fake segmentor's four channels."""

    def embed(self, vocabulary: Vocabulary) -> torch.Tensor:
        return torch.eye(4)[[NAMES.index(query) for query in vocabulary.queries]]


def of_words() -> Config:
    """The fake segmentor with that text encoder."""
    config = make_config()
    config.model.decode_head.update(embeddings=None, text_encoder={"type": "ColourWords"})
    return config
