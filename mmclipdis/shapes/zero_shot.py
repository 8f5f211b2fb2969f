"""Zero-shot measures of a CLIP on freshly drawn ShapeScenes pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from mmclipdis.clip.text.encoder import TextTower, embed_vocabulary
from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.shapes.pairs import fit
from mmclipdis.shapes.pretrain import normalise
from mmclipdis.shapes.scene import Scene, draw_scene, random_size
from mmclipdis.shapes.world import THINGS

_STREAM = 8_888  # neither the pretraining's pictures nor the data sets'


def class_embeddings(tower: TextTower, names: Sequence[str]) -> Tensor:
    """Unit rows ``(C, E)``: the mean of the unit embeddings of CLIP's 80 ImageNet prompts."""
    vocabulary = Vocabulary.from_names(names, "imagenet80")
    return embed_vocabulary(tower, vocabulary, progress=False, cache_dir=False)


def image_embeddings(
    tower: ImageTower, pictures: Sequence[NDArray[np.uint8]], batch: int = 64
) -> Tensor:
    """Unit rows ``(n, E)`` of RGB uint8 pictures, each resized to the tower's square."""
    side = tower.image_size[0]
    rows = []
    for start in range(0, len(pictures), batch):
        stack = np.stack([fit(picture, side) for picture in pictures[start : start + batch]])
        with torch.inference_mode():
            rows.append(F.normalize(tower.encode_image(normalise(stack)), dim=-1))
    return torch.cat(rows)


def average_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Mean of the precisions at the ranks of the positives; NaN when there is no positive."""
    ranked = truth[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].mean()) if ranked.any() else float("nan")


def draw_scenes(count: int, seed: int, *, single: bool) -> list[Scene]:
    """Fresh scenes: with exactly one object, or with at least two different ones."""
    scenes: list[Scene] = []
    for index in range(100 * count):
        rng = np.random.default_rng([_STREAM, seed, int(single), index])
        scene = draw_scene(rng, random_size(rng), "single" if single else "scene")
        if len(scene.things) == 1 if single else len(scene.things) >= 2:
            scenes.append(scene)
        if len(scenes) == count:
            break
    return scenes


def tight_crops(scene: Scene) -> list[NDArray[np.uint8]]:
    """The picture inside the box around the visible part of each object, in object order."""
    crops = []
    for number in range(1, len(scene.objects) + 1):
        rows, cols = np.nonzero(scene.instances == number)
        crops.append(scene.image[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1])
    return crops


def zero_shot(
    image_tower: ImageTower, text_tower: TextTower, count: int, seed: int, progress: bool = True
) -> dict[str, float]:
    """Percentages over ``count`` fresh pictures of each kind, with prompt ensembles.

    ``single_object_accuracy``: pictures with one object whose best-scoring thing is right.
    ``tight_crop_accuracy``: the same for crops of every object of multi-object pictures.
    ``multi_object_mAP``: mean over things of the average precision with which the picture-text
    cosine ranks the multi-object pictures.
    """
    with tqdm(total=3, desc="zero-shot", disable=not progress or None) as bar:
        text = class_embeddings(text_tower, THINGS)
        bar.update()
        singles = draw_scenes(count, seed, single=True)
        found = (image_embeddings(image_tower, [s.image for s in singles]) @ text.T).argmax(1)
        single = np.mean([s.objects[0] == i for s, i in zip(singles, found.tolist(), strict=True)])
        bar.update()
        scenes = draw_scenes(count, seed, single=False)
        crops = [crop for scene in scenes for crop in tight_crops(scene)]
        objects = [index for scene in scenes for index in scene.objects]
        found = (image_embeddings(image_tower, crops) @ text.T).argmax(1)
        crop = np.mean([a == b for a, b in zip(objects, found.tolist(), strict=True)])
        scores = (
            (image_embeddings(image_tower, [s.image for s in scenes]) @ text.T).double().numpy()
        )
        truth = np.asarray([[name in scene.things for name in THINGS] for scene in scenes])
        precisions = [average_precision(scores[:, c], truth[:, c]) for c in range(len(THINGS))]
        bar.update()
    return {
        "single_object_accuracy": 100 * float(single),
        "tight_crop_accuracy": 100 * float(crop),
        "multi_object_mAP": 100 * float(np.nanmean(precisions)),
    }
