"""Image-caption pairs for pretraining: what a web crawl would give, and nothing more.

A pair is a square picture and a few sentences about it. Boxes, masks and label maps of the
generator never reach the pretraining.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast, get_args

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from mmclipdis.shapes.captions import full_caption, partial_caption
from mmclipdis.shapes.scene import Kind, draw_scene, random_size
from mmclipdis.shapes.world import CLASSES, STUFF, THINGS
from mmclipdis.utils.processes import each
from mmclipdis.utils.whole_files import whole_file, write_text

CAPTIONS_PER_IMAGE = 8
_SHARES = {"scene": 0.45, "single": 0.13, "closeup": 0.12, "subject": 0.22, "ground": 0.08}
#: What the sentences name: all that is in sight, or of the things the largest one only.
Named = Literal["all", "largest"]
_STREAM = 7_777  # keeps the pictures of pretraining apart from those of the data sets


@dataclass(frozen=True)
class Pairs:
    """Pictures ``(n, s, s, 3)`` uint8 RGB (memory-mapped) and, for each, its captions."""

    images: NDArray[np.uint8]
    captions: list[tuple[str, ...]]


@dataclass(frozen=True)
class View:
    """A photograph, and what is in sight.

    Attributes:
        image: ``(h, w, 3)`` uint8 RGB of any size.
        things: names of the things that a caption could name.
        grounds: names of the grounds.
        shares: ``(C,)`` part of the picture that each class covers.
    """

    image: NDArray[np.uint8]
    things: tuple[str, ...]
    grounds: tuple[str, ...]
    shares: NDArray[np.float64]

    @property
    def largest(self) -> tuple[str, ...]:
        """The thing that covers most, alone; none where there is none."""
        by_share = sorted(self.things, key=lambda name: -self.shares[CLASSES.index(name)])
        return tuple(by_share[:1])


def draw_view(rng: np.random.Generator, manner: str) -> View:
    """One photograph of any size with the things and the grounds that a caption would name.

    ``subject`` is a scene photographed from near, with one of its objects filling the frame more
    or less: often blurred, cut off, or with a part of another object in view. The other manners
    are the kinds of :func:`mmclipdis.shapes.scene.draw_scene`.
    """
    if manner != "subject":
        low, high, aspect = (18.0, 110.0, 2.0) if manner == "closeup" else (64.0, 176.0, 1.6)
        scene = draw_scene(rng, random_size(rng, low, high, aspect), cast(Kind, manner))
        return View(scene.image, scene.things, scene.grounds, _shares(scene.labels))
    scene = draw_scene(rng, random_size(rng), "scene")
    number = int(rng.integers(len(scene.objects))) + 1
    rows, cols = np.nonzero(scene.instances == number)
    y, x = _frame(rng, rows, scene.labels.shape[0]), _frame(rng, cols, scene.labels.shape[1])
    share = _shares(scene.labels[y, x])
    subject = CLASSES[scene.objects[number - 1]]
    things = [n for n in THINGS if n == subject or share[CLASSES.index(n)] > 0.15]
    grounds = [n for n in STUFF if share[CLASSES.index(n)] > 0.05]
    return View(scene.image[y, x], tuple(things), tuple(grounds), share)


def _shares(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES))
    return np.asarray(counts / counts.sum())


def _frame(rng: np.random.Generator, covered: NDArray[np.int64], limit: int) -> slice:
    """An interval around the covered coordinates, from a little inside to well outside."""
    low, high = int(covered.min()), int(covered.max()) + 1
    before, after = rng.uniform(-0.06, 0.3, size=2) * (rng.random() < 0.75) * (high - low)
    return slice(max(int(low - before), 0), min(int(np.ceil(high + after)), limit))


def fit(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resizes a picture to a square of ``side`` pixels, with area averaging when it shrinks."""
    shrink = min(image.shape[:2]) > side
    mode = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=mode), dtype=np.uint8)


def make_pair(
    index: int, seed: int, side: int, named: Named = "all"
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Pair number ``index`` of the stream with this seed; independent of all other pairs."""
    rng = np.random.default_rng([_STREAM, seed, index])
    manner = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    view = draw_view(rng, manner)
    things = view.things if named == "all" else view.largest
    # with a thing in sight, people who name one thing do not name the ground either
    grounds = view.grounds if named == "all" or not things else ()
    captions = [full_caption(rng, things, grounds) for _ in range(3)]
    captions.append(partial_caption(rng, grounds or things))
    while len(captions) < CAPTIONS_PER_IMAGE:
        # Most people name the object, and one of several.
        count = 1 if rng.random() < 0.75 else 2
        captions.append(partial_caption(rng, things or grounds, count))
    return fit(view.image, side), tuple(captions)


def make_pairs(
    folder: Path, count: int, *, seed: int, side: int, named: Named = "all", workers: int = 1
) -> Pairs:
    """Draws ``count`` pairs into ``folder``, or opens what is already there.

    Raises ValueError if ``folder`` holds pairs of other settings, or for another ``named``.
    """
    if named not in get_args(Named):
        raise ValueError(f"named must be one of {', '.join(get_args(Named))}, got {named!r}")
    settings = f"{count} {seed} {side}" + ("" if named == "all" else f" {named}")
    done, images_at, captions_at = (folder / n for n in ("done", "images.npy", "captions.txt"))
    if done.exists():
        if done.read_text() != settings:
            raise ValueError(
                f"{folder} holds pairs of other settings (count seed side named: "
                f"{done.read_text()}, asked for {settings}); name another folder or delete it"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        images = open_memmap(images_at, "w+", np.uint8, (count, side, side, 3))
        job = partial(make_pair, seed=seed, side=side, named=named)
        with whole_file(captions_at) as out:
            results = each(job, range(count), workers, title="draw pairs", spawn=True)
            for index, (image, captions) in enumerate(results):
                images[index] = image
                out.write(("\t".join(captions) + "\n").encode())
        images.flush()
        write_text(done, settings)  # last: from now on the folder counts
    captions_of = [tuple(line.split("\t")) for line in captions_at.read_text().splitlines()]
    return Pairs(np.load(images_at, mmap_mode="r"), captions_of)
