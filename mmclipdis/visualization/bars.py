"""A photo beside the scores of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mmclipdis.utils.fonts import font_for
from mmclipdis.visualization.sheet import LONGEST, MARGIN, PAPER, TEXT_COLOUR, class_palette


def draw_bars(
    photo: np.ndarray, scores: Sequence[tuple[str, float]], height: int = 360
) -> Image.Image:
    """The photo, ``height`` pixels high, beside one bar a word.

    Args:
        photo: RGB uint8 (H, W, 3).
        scores: Words and their scores, in [0, 1], in the order in which they are drawn.
        height: Of the photo; the picture grows with the number of words.
    """
    scale = min(height / photo.shape[0], LONGEST * height / photo.shape[1])
    sides = (max(round(side * scale), MARGIN) for side in (photo.shape[1], photo.shape[0]))
    small = Image.fromarray(np.ascontiguousarray(photo)).resize(
        tuple(sides), Image.Resampling.BICUBIC
    )
    step, size, bar = 28, 15, 240
    length = max(small.height, step * len(scores)) + 2 * MARGIN
    sheet = Image.new("RGB", (small.width + bar + 3 * MARGIN, length), PAPER)
    sheet.paste(small, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(sheet)
    colour, left = class_palette(1)[0], small.width + 2 * MARGIN
    for number, (word, score) in enumerate(scores):
        top = MARGIN + step * number
        text = f"{word[:28]}  {score:.2f}"
        draw.text((left, top), text, fill=TEXT_COLOUR, font=font_for(text, size))
        end = left + round(bar * min(max(score, 0.0), 1.0))
        draw.rectangle((left, top + 20, end, top + 24), fill=colour)
    return sheet
