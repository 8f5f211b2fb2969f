"""Where a photo looks like a word, by a segmentor and its windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmclipdis.apis.inferencers.heat import one_word
from mmclipdis.apis.results.base import Result
from mmclipdis.models.segmentation.prediction import full_size_scores, resize
from mmclipdis.models.segmentation.refining import in_chunks, refine_scores
from mmclipdis.models.segmentation.samples import image_content, photo_size, refuse_padding, unflip
from mmclipdis.models.segmentation.window_segmentor import WindowSegmentor


@torch.no_grad()
def segmentor_heat(part: Any, batch: Any, result: Result, word: str) -> tuple[np.ndarray, str]:
    """Values float32 (H, W) of a segmentor, and what they are.

    Heads that compare patches with words give the cosine with this word, after feature surgery a
    score among the words of the result; trained ones (CAT-Seg) look at all words together and give
    its probability among those of the result.

    Args:
        part: The segmentor.
        batch: Normalised ``inputs`` of the photo and its ``data_samples``.
        result: What was found in the photo.
        word: Any word.

    Raises:
        ValueError: a word that cannot be read, or a head without words.
    """
    word = one_word(word)
    scale = getattr(part.decode_head, "logit_scale", None)
    refiners = getattr(part, "refiners", ())
    names: tuple[str, ...] = (word,)
    surgery = getattr(part.decode_head, "score_norm", None) == "surgery"
    cosine = "score" if surgery else "cosine"
    together = getattr(part.decode_head, "needs_cls", False) or not in_chunks(refiners)
    if scale is None or together:  # the words are looked at together
        names = result.names if word in result.names else (word, *result.names)
    place = names.index(word)
    meta = batch["data_samples"][0].metainfo
    with part.asking(tuple((name,) for name in names)):
        if not isinstance(part, WindowSegmentor):
            return _stock_heat(part, batch["inputs"], meta, result.size), cosine
        image = image_content(batch["inputs"][0], meta)
        masks = []
        if part.scores_need_masks:  # refiners of labels, which need some too, are not asked
            masks.append(part.photo_masks(batch["inputs"][:1], batch["data_samples"][:1]))
        found = part.window_scores([image], *masks)
        scores, size = found[0], photo_size(meta, image)
        activation = part.label_rule().activation
        if in_chunks(refiners):
            scores, place = scores.select(slice(place, place + 1)), 0
        refine = refine_scores(refiners, image, size)
        values = full_size_scores(scores, size, activation, refine)[place]
    values = unflip(values, meta) / (scale or 1)
    return values.float().cpu().numpy(), cosine if activation is None else "probability"


def _stock_heat(part: Any, inputs: Tensor, meta: Any, size: Sequence[int]) -> np.ndarray:
    """Of mmseg's ``EncoderDecoder`` with a head that compares; the whole photo in one window."""
    refuse_padding(meta)
    maps = part.decode_head(part.extract_feat(inputs))[0, :1] / part.decode_head.logit_scale
    maps = resize(maps, (int(inputs.shape[-2]), int(inputs.shape[-1])))
    height, width = meta.get("img_shape", inputs.shape[-2:])[:2]
    found = resize(maps[:, :height, :width], (int(size[0]), int(size[1])))
    return unflip(found, meta)[0].float().cpu().numpy()
