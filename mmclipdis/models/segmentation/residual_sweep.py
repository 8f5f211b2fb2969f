"""Labels under several weights of the last block's residual, from one pass over the windows.

Up to its feed-forward branch the last block is linear in ClearCLIP's alpha: ``U = A + alpha X``.
So its input ``X`` and its attention output ``A`` are computed once for all alphas, and only what
follows is computed again: the feed-forward branch (if the readout has one), the final norm, the
projection and the cosines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.clip.towers.blocks import view_of
from mmclipdis.clip.towers.features import tokens_to_map
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.clip.towers.readout import Readout
from mmclipdis.clip.weights.readout_mark import describe_readout
from mmclipdis.engine.random_weights import check_weights
from mmclipdis.models.segmentation.encoding import encode_windows
from mmclipdis.models.segmentation.open_vocab_segmentor import OpenVocabSegmentor
from mmclipdis.models.segmentation.prediction import WindowScores
from mmclipdis.models.segmentation.samples import predict_samples
from mmclipdis.models.segmentation.windows import Padding, Windows

#: ``[X | A]`` of the windows of an image, the windows, and their padding.
_Parts = tuple[Tensor, Windows, Padding]


def check_sweep(model: Any) -> None:
    """Refuse a model whose last block does not have a residual that can be weighted afterwards.

    Raises:
        ValueError: naming what stands in the way.
    """
    if not isinstance(model, OpenVocabSegmentor):
        raise ValueError(
            f"{type(model).__name__} is no training-free segmentor: the weight of the residual is "
            "swept in OpenVocabSegmentor, such as that of configs/clearclip"
        )
    tower, readout = (
        getattr(model.backbone, "tower", None),
        getattr(model.backbone, "readout", None),
    )
    if not isinstance(tower, ImageTower) or not isinstance(readout, Readout):
        raise ValueError(
            f"{type(model.backbone).__name__} is not read out in its last block alone: sweep the "
            "residual of a ViT with a readout such as 'clearclip'"
        )
    settings = model._settings()
    wrong = {
        "no attention output": not readout.attention,
        "residual='cls'": readout.residual == "cls",
        "an affinity": readout.affinity is not None,
        f"last_blocks={readout.last_blocks}": readout.last_blocks > 1,
        "a single block": tower.depth < 2,
        "a norm between its last block and the head": view_of(tower.blocks[-1]).after is not None,
        "scores weighted by CLS": getattr(model.decode_head, "needs_cls", False),
        f"test_cfg.stitch={settings.stitch!r}": settings.stitch != "scores",
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ValueError(
            f"the residual of the readout {describe_readout(readout)} cannot be swept in a model "
            f"with {', '.join(found)}: take a config such as clearclip"
        )


@torch.no_grad()
def sweep_residual(
    model: OpenVocabSegmentor,
    inputs: Tensor | Sequence[Tensor],
    data_samples: Sequence[SegDataSample] | None,
    weights: Sequence[float],
) -> Iterator[tuple[float, list[SegDataSample]]]:
    """Label images under ``readout(residual="token", residual_weight=w)`` for every weight.

    Args:
        model: That :func:`check_sweep` lets pass; its own residual is replaced.
        inputs, data_samples: As in ``model.predict``.
        weights: Values of alpha.

    Yields:
        A weight and the samples, which the next one overwrites.
    """
    check_weights(model)
    # by their memory, which the image that is kept beside its parts holds
    kept: dict[tuple[int, torch.Size], tuple[Tensor, _Parts]] = {}

    def scores(images: Sequence[Tensor], masks: Sequence[Tensor] | None = None) -> Any:
        keys = [(image.data_ptr(), image.shape) for image in images]
        if not all(key in kept for key in keys):
            parts = zip(images, _window_parts(model, images), strict=True)
            kept.update(zip(keys, parts, strict=True))
        return [_scores_at(model, *kept[key][1], weight) for key in keys]

    def predict(images: Any, samples: Any) -> list[SegDataSample]:
        return predict_samples(
            images, samples, scores, model.label_rule(), model._settings(), model.refiners,
            masks=model.photo_masks(images, samples),
        )  # fmt: skip

    for weight in weights:
        yield weight, model.predict_by_names(predict, inputs, data_samples)


def _window_parts(model: OpenVocabSegmentor, images: Sequence[Tensor]) -> list[_Parts]:
    """Of each image: ``[X | A]`` of the patches of its windows ``(n, 2 D, h, w)``, and these."""
    settings, backbone = model._settings(), model.backbone
    bare = replace(backbone.readout, residual="none", residual_weight=1.0, ffn=False)

    def parts(windows: Tensor) -> Tensor:
        before = backbone.tower.depth - 2
        found = backbone.tower.forward_dense(
            windows, bare, intermediates=(before,), with_tokens=True
        )
        return torch.cat([found.intermediates[0], found.tokens], dim=1)

    layouts = [settings.windows((image.shape[-2], image.shape[-1])) for image in images]
    paddings = [settings.padding(layout.crop, backbone.patch_size) for layout in layouts]
    maps = encode_windows(images, layouts, parts, settings.window_batch_size, paddings)
    return list(zip(maps, layouts, paddings, strict=True))


def _scores_at(
    model: OpenVocabSegmentor, parts: Tensor, layout: Windows, padding: Padding, weight: float
) -> WindowScores:
    """Scores of an image's windows with the residual at ``weight``."""
    settings = model._settings()
    logits = [
        model.decode_head((_dense_map(model.backbone, some, weight),))
        for some in parts.split(settings.window_batch_size)
    ]
    scores = model.decode_head.normalized(torch.cat(logits))
    return WindowScores(scores, layout, padding, is_whole=settings.mode == "whole")


def _dense_map(backbone: Any, parts: Tensor, weight: float) -> Tensor:
    """The map in the joint space ``(n, E, h, w)`` of ``[X | A]`` ``(n, 2 D, h, w)``."""
    tower, readout = backbone.tower, backbone.readout
    grid = (int(parts.shape[-2]), int(parts.shape[-1]))
    before, attention = parts.flatten(2).mT.chunk(2, dim=2)
    tokens = attention + (before if weight == 1 else weight * before) if weight else attention
    if readout.ffn:
        tokens = tokens + view_of(tower.blocks[-1]).feed_forward(tokens)
    joint = tower.project(tower.norm_post(tokens), readout.pool_attention)
    found = tokens_to_map(joint, grid)
    return F.normalize(found, dim=1) if backbone.normalize else found
