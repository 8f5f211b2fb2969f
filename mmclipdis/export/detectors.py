"""Detectors as programs: from a normalised image of one size to boxes before NMS, and their scores.

What is left to whoever runs the file is non-maximum suppression, whose number of boxes depends on
the photo. All else has fixed shapes at one size of the image, which fills the input: nothing is
padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdet.structures import DetDataSample

Size = tuple[int, int]
NMS_LEFT_OUT = "the file gives boxes before NMS, which is left to its user: see docs/export.md"
NO_PADDING = "the photo fills the image: it is resized to its size, and nothing is padded"
#: Scores that differ by less, relative to themselves, may change places by rounding.
APART = 1e-5


def samples_of(size: Size) -> list[Any]:
    """The one sample of a photo that fills the input, (height, width) in pixels."""
    shape = {"img_shape": size, "batch_input_shape": size, "scale_factor": (1.0, 1.0)}
    return [DetDataSample(metainfo=shape)]


@contextmanager
def without_text_tower(model: Any) -> Iterator[None]:
    """Inside the block a detector has its table of embeddings, and nothing to make others with."""
    text = model.class_text.text
    text.embeddings()
    encoder, text.encoder = text.encoder, None
    try:
        yield
    finally:
        text.encoder = encoder
