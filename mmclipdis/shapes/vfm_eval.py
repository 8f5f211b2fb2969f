"""How well patch features tell the segments of a picture apart, on freshly drawn ShapeScenes.

The masks of the generator are used here, to measure, and nowhere in the pretraining.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from mmclipdis.clip.towers.readout import get_readout
from mmclipdis.shapes import pretrain
from mmclipdis.shapes.scene import Scene
from mmclipdis.shapes.vfm import PATCH, build_vfm, normalise, patch_features
from mmclipdis.shapes.weights import load_towers
from mmclipdis.shapes.world import THINGS

PURE = 0.75  # a patch counts if this share of its pixels belongs to one segment
#: ``(h * PATCH, w * PATCH, 3)`` uint8 RGB -> features ``(C, h, w)``
Features = Callable[[NDArray[np.uint8]], Tensor]


@dataclass(frozen=True)
class PatchTruth:
    """For each patch, row by row: class index, segment id, and whether the segment fills it."""

    classes: NDArray[np.int64]
    segments: NDArray[np.int64]
    pure: NDArray[np.bool_]


def on_grid(scene: Scene, side: int) -> tuple[NDArray[np.uint8], PatchTruth]:
    """The picture with its longer side ``side`` px and whole patches, and the truth about them.

    A segment is an object, or all that is visible of a ground.
    """
    scale = side / max(scene.labels.shape) / PATCH
    rows, cols = (max(round(n * scale), 1) for n in scene.labels.shape)
    size = (cols * PATCH, rows * PATCH)
    image = cv2.resize(scene.image, size, interpolation=cv2.INTER_LINEAR)
    grounds = 1 + len(scene.objects) + scene.labels.astype(np.int64)
    segments = np.where(scene.instances > 0, scene.instances, grounds)
    ids, first = np.unique(segments, return_index=True)
    shares = np.stack([_share(segments == i, size) for i in ids])  # (segments, rows, cols)
    best = shares.argmax(axis=0).ravel()
    classes = scene.labels.ravel()[first].astype(np.int64)
    truth = PatchTruth(classes[best], ids[best], shares.max(axis=0).ravel() >= PURE)
    return np.asarray(image, np.uint8), truth


def _share(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.float32]:
    """Share of each patch that a mask covers, after resizing it to ``size`` (width, height)."""
    soft = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    patches = soft.reshape(size[1] // PATCH, PATCH, size[0] // PATCH, PATCH)
    return np.asarray(patches.mean(axis=(1, 3)), np.float32)


def area_under_curve(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Probability that a positive scores above a negative, ties counting half."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    wins = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def separation(features: Tensor, truth: PatchTruth) -> dict[str, float]:
    """Measures of one picture, see :func:`patch_separation`; without those it has no pairs for."""
    unit = F.normalize(features.flatten(1).T.double(), dim=-1).numpy()[truth.pure]
    cosine = unit @ unit.T
    segments, classes = truth.segments[truth.pure], truth.classes[truth.pure]
    once = np.triu(np.ones(cosine.shape, bool), 1)
    same = (segments[:, None] == segments) & once
    different = (classes[:, None] != classes) & once
    found = {}
    if same.any() and different.any():
        found["auc"] = area_under_curve(cosine[same], cosine[different])
        found["same"] = float(cosine[same].mean())
        found["different"] = float(cosine[different].mean())
    thing = classes < len(THINGS)
    touched = thing[:, None] | thing
    if (same & touched).any() and (different & touched).any():
        found["auc_things"] = area_under_curve(cosine[same & touched], cosine[different & touched])
    return found


def patch_separation(
    features: Features, scenes: Sequence[Scene], side: int = 160, progress: bool = False
) -> dict[str, float]:
    """Percentages, means over the scenes, of the cosines between the patches of a picture.

    ``auc``: how often two patches of one segment are more alike than two of different classes
    (area under the ROC curve; chance is 50). ``auc_things``: the same over the pairs with at least
    one patch on an object; the grounds, which are most of a picture, say nothing there. ``same``
    and ``different``: mean cosine (times 100) of the two kinds of pairs. Patches that no segment
    covers to ``PURE`` are left out.
    """
    found = []
    for scene in tqdm(scenes, "patches", disable=not progress or None):
        image, truth = on_grid(scene, side)
        with torch.inference_mode():
            found.append(separation(features(image), truth))
    names = ("auc", "auc_things", "same", "different")
    return {name: 100 * float(np.mean([f[name] for f in found if name in f])) for name in names}


def vfm_features(model: VisionTransformer) -> Features:
    """Patch features of a VFM as its user reads them."""

    def features(image: NDArray[np.uint8]) -> Tensor:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        return patch_features(model, normalise(x))[0]

    return features


def feature_makers(vfm: VisionTransformer) -> dict[str, Features]:
    """The VFM and what it is compared with: colours, a random ViT, and the tiny CLIP's parts."""
    tower, _ = load_towers()

    def colours(image: NDArray[np.uint8]) -> Tensor:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        return F.avg_pool2d(x, PATCH)[0] - 0.5

    def clip(part: str) -> Features:
        def features(image: NDArray[np.uint8]) -> Tensor:
            context = () if part == "map" else (part,)
            x = pretrain.normalise(image[None])
            dense = tower.forward_dense(x, get_readout("clearclip"), context=context)
            return dense.map[0] if part == "map" else dense.context[part][0]

        return features

    torch.manual_seed(0)
    return {
        "mean colour": colours,
        "random ViT": vfm_features(build_vfm().eval()),
        "CLIP q": clip("q"),
        "CLIP k": clip("k"),
        "CLIP dense (qq)": clip("map"),
        "shapes-vfm": vfm_features(vfm),
    }
