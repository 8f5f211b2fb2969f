"""Image-caption pairs for pretraining: what a web crawl would give, and nothing more.

A pair is a square picture and a few sentences about it. Boxes, masks and label maps of the
generator never reach the pretraining.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from mmclipdis.shapes.captions import full_caption, partial_caption
from mmclipdis.shapes.scene import KINDS, Kind, Scene, draw_scene, random_size

CAPTIONS_PER_IMAGE = 8
_SHARES = {'scene': 0.5, 'single': 0.15, 'closeup': 0.27, 'ground': 0.08}
_STREAM = 7_777  # keeps the pictures of pretraining apart from those of the data sets


@dataclass(frozen=True)
class Pairs:
    """Pictures ``(n, s, s, 3)`` uint8 RGB (memory-mapped) and, for each, its captions."""

    images: NDArray[np.uint8]
    captions: list[tuple[str, ...]]


def draw_view(rng: np.random.Generator, kind: Kind, side: int) -> tuple[Scene, NDArray[np.uint8]]:
    """A scene of random size and its picture resized to ``side`` x ``side`` pixels."""
    low, high, aspect = (18.0, 110.0, 2.0) if kind == 'closeup' else (64.0, 176.0, 1.6)
    scene = draw_scene(rng, random_size(rng, low, high, aspect), kind)
    return scene, fit(scene.image, side)


def fit(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resizes a picture to a square of ``side`` pixels, with area averaging when it shrinks."""
    shrink = min(image.shape[:2]) > side
    mode = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=mode), dtype=np.uint8)


def make_pair(index: int, seed: int, side: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Pair number ``index`` of the stream with this seed; independent of all other pairs."""
    rng = np.random.default_rng([_STREAM, seed, index])
    kind = KINDS[int(rng.choice(len(KINDS), p=[_SHARES[k] for k in KINDS]))]
    scene, image = draw_view(rng, kind, side)
    things, grounds = scene.things, scene.grounds
    captions = [full_caption(rng, things, grounds) for _ in range(3)]
    captions.append(partial_caption(rng, grounds))
    while len(captions) < CAPTIONS_PER_IMAGE:
        # Most people name the object, and one of several.
        count = 1 if rng.random() < 0.75 else 2
        captions.append(partial_caption(rng, things or grounds, count))
    return image, tuple(captions)


def make_pairs(folder: Path, count: int, *, seed: int, side: int, workers: int = 1) -> Pairs:
    """Draws ``count`` pairs into ``folder``, or opens what is already there.

    Raises ValueError if ``folder`` holds pairs of other settings.
    """
    settings = f'{count} {seed} {side}'
    done, images_at, captions_at = (folder / n for n in ('done', 'images.npy', 'captions.txt'))
    if done.exists():
        if done.read_text() != settings:
            raise ValueError(
                f'{folder} holds pairs of other settings (count seed side: {done.read_text()}, '
                f'asked for {settings}); name another folder or delete it'
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        images = open_memmap(images_at, 'w+', np.uint8, (count, side, side, 3))
        job = partial(make_pair, seed=seed, side=side)
        with captions_at.open('w') as out, multiprocessing.Pool(workers) as pool:
            results = pool.imap(job, range(count), chunksize=64)
            for index, (image, captions) in enumerate(tqdm(results, 'draw', count)):
                images[index] = image
                out.write('\t'.join(captions) + '\n')
        images.flush()
        done.write_text(settings)
    captions_of = [tuple(line.split('\t')) for line in captions_at.read_text().splitlines()]
    return Pairs(np.load(images_at, mmap_mode='r'), captions_of)
