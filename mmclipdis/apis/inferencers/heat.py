"""Where a photo looks like a word, by the dense map of any CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.engine.random_weights import before_use
from mmclipdis.models.recognition.segments import resize
from mmclipdis.models.text_encoder import dense_option
from mmclipdis.utils.precision import without_autocast


def one_word(word: Any) -> str:
    """A word to draw a map of, without blanks around it.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(word, str) or not word.strip():
        raise ValueError(f"a heat map is of one word, such as 'car', got {word!r}")
    return " ".join(word.split())


@torch.no_grad()
def word_embedding(encoder: Any, word: str, templates: Any) -> Tensor:
    """CLIP's text embedding (1, E) of one word."""
    before_use(encoder)
    asked = Vocabulary(((one_word(word),),), templates)
    embedding: Tensor = encoder.embed(asked, **dense_option(encoder))
    return embedding


@torch.no_grad()
def patch_cosines(
    encoder: Any, images: Tensor, text: Tensor, projector: Any = None, located: bool = False
) -> Tensor:
    """Cosines (B, K, h, w), float32, of an encoder's dense map with texts (K, E).

    Args:
        encoder: A backbone of CLIP with ``dense()``.
        images: Normalised (B, 3, H, W).
        text: Text embeddings.
        projector: DCLIP's projectors, which both go through; or None.
        located: Read a ViT out as ClearCLIP does if it is read out as CLIP itself, whose plain
            tokens tell little about their places.
    """
    vanilla = getattr(encoder, "readout", None) == READOUTS["vanilla"]
    if located and vanilla and hasattr(encoder.tower, "blocks"):
        before_use(encoder)
        dense = encoder.tower.forward_dense(images, READOUTS["clearclip"]).map
    else:
        dense = encoder.dense(images).map
    with without_autocast(dense):
        tokens, text = dense.float().movedim(1, -1), text.float()
        if projector is not None:
            tokens, text = projector(tokens, text)
        unit = F.normalize(tokens, dim=-1) @ F.normalize(text, dim=-1).T
    return unit.movedim(-1, 1)


def at_photo(
    cosines: Tensor, inputs: Sequence[int], content: Sequence[int], size: Sequence[int]
) -> np.ndarray:
    """A map (1, 1, h, w) at the size of its photo, float32 (H, W).

    Args:
        cosines: The map.
        inputs: (height, width) that it covers: the photo as the model sees it, with padding.
        content: (height, width) of the photo therein, at the top left.
        size: (height, width) of the photo.
    """
    covered = resize(cosines, (int(inputs[0]), int(inputs[1])))
    part = covered[..., : int(content[0]), : int(content[1])]
    return resize(part, (int(size[0]), int(size[1])))[0, 0].float().cpu().numpy()
