"""What tests of configs do not measure: cosines between class texts, and where patches look."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmclipdis.apis.class_similarity import class_similarity
from mmclipdis.apis.experiments import Metrics
from mmclipdis.clip.towers.attention import run_block
from mmclipdis.clip.towers.image_tower import ImageTower
from mmclipdis.shapes.pairs import fit
from mmclipdis.shapes.pretrain import normalise
from mmclipdis.shapes.weights import load_towers
from mmclipdis.visualization.feature_maps import attention_rows

#: Pictures, their side in pixels (20 x 20 patches), and the share of patches that are "a few".
PICTURES, SIDE, FEW = 50, 160, 0.05

Measure = Callable[[Path, Path, str, Sequence[str]], Metrics]


def similarity(folder: Path, data: Path, checkpoint: str, options: Sequence[str]) -> Metrics:
    """Cosines between the texts of classes, as ``tools/analysis_tools/class_similarity.py``.

    Args:
        folder: Where the report goes.
        data: Not used: texts have no pictures.
        checkpoint: Projectors; none: the texts as CLIP has them.
        options: More words of its command line.
    """
    words = ["ShapeScenesDataset", "--overwrite", "--out", str(folder), *options]
    words += ["--projectors", checkpoint] if checkpoint else []
    report = json.loads((class_similarity(words) / "similarity.json").read_text())
    found: Metrics = report["projected" if checkpoint else "clip"]
    return found


def attention(folder: Path, data: Path, checkpoint: str, options: Sequence[str]) -> Metrics:
    """Of the attention that patches of the tiny CLIP give to patches, how much goes to a few.

    The mean over the first test pictures of ``data``, as percent: ``few_N`` in block N, counted
    from 1, is what the most attended 5 % of the patches get from all. Alike attention would give 5.
    """
    tower, _ = load_towers()
    paths = sorted((data / "images" / "val").glob("*.png"))[:PICTURES]
    pictures = np.stack([fit(_read(path), SIDE) for path in paths])
    with torch.inference_mode():
        shares = torch.stack([_shares(tower, x[None]) for x in normalise(pictures)]).mean(0)
    return {f"few_{number}": 100 * float(share) for number, share in enumerate(shares, start=1)}


def _read(path: Path) -> NDArray[np.uint8]:
    """A picture ``(h, w, 3)``, RGB."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path} cannot be read as a picture; draw the world again")
    return np.asarray(picture[..., ::-1], np.uint8)


def _shares(tower: ImageTower, image: Tensor) -> Tensor:
    """Share of the most attended patches in each block, of one picture ``(1, 3, h, w)``."""
    x, found = tower.embed(image), []
    for block in tower.blocks:
        patches = range(1, x.shape[1])
        found.append(share_of_few(attention_rows(block, x, patches)[0, :, 1:]))
        x = run_block(block, x)
    return torch.stack(found)


def share_of_few(attention: Tensor, few: float = FEW) -> Tensor:
    """What the most attended columns get of ``(N, N)`` weights; at least one column counts."""
    received = attention.sum(0)
    count = max(1, round(few * len(received)))
    return received.topk(count).values.sum() / received.sum()


#: In place of a config in configs/shapes/claims.yml.
MEASURES: Mapping[str, Measure] = {"similarity": similarity, "attention": attention}
