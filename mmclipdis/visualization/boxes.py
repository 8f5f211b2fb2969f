"""Boxes with their words, in the colours that label maps have.

mmdet's visualizer draws with matplotlib, whose letters hide a small photo, and torchvision's
``draw_bounding_boxes`` takes one font, which has not the characters of every word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mmclipdis.utils.fonts import font_for
from mmclipdis.visualization.sheet import class_palette


def draw_boxes(
    photo: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[str],
    num_classes: int,
    masks: np.ndarray | None = None,
    opacity: float = 0.4,
) -> np.ndarray:
    """Draw boxes over a photo, the first on top; RGB uint8 (H, W, 3).

    Lines and letters grow with the photo. A box that leaves the photo is cut at its border. What is
    written stands above its box, or else below it, or else in it.

    Args:
        photo: RGB uint8 (H, W, 3).
        boxes: x1, y1, x2, y2 in pixels (n, 4).
        labels: Class of each box (n,), which decides its colour.
        texts: What is written at each box.
        num_classes: How many classes there are.
        masks: Bool (n, H, W), painted in the colours of the boxes; None for none.
        opacity: Of the masks.
    """
    palette = class_palette(num_classes)
    picture = np.array(photo)
    for mask, label in zip(() if masks is None else masks, labels):
        mixed = picture[mask] * (1 - opacity) + np.asarray(palette[label]) * opacity
        picture[mask] = mixed.round().astype(np.uint8)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    height, width = photo.shape[:2]
    line, size = max(round(max(height, width) / 250), 1), max(round(max(height, width) / 38), 11)
    for box, label, text in reversed(list(zip(boxes.tolist(), labels, texts, strict=True))):
        colour = palette[label]
        x1, x2 = (min(max(round(x), 0), width - 1) for x in (box[0], box[2]))
        y1, y2 = (min(max(round(y), 0), height - 1) for y in (box[1], box[3]))
        draw.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=colour, width=line)
        font = font_for(text, size)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        room = (int(right - left) + 4, int(bottom - top) + 4)
        top_of_text = y1 - room[1]
        if top_of_text < 0:
            top_of_text = y2 + 1 if y2 + 1 + room[1] <= height else y1
        at = max(min(x1, width - room[0]), 0), top_of_text
        draw.rectangle((*at, at[0] + room[0], at[1] + room[1]), fill=colour)
        ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
        draw.text((at[0] + 2 - left, at[1] + 2 - top), text, fill=ink, font=font)
    return np.asarray(image)


def enlarged(
    photo: np.ndarray, boxes: np.ndarray, masks: np.ndarray | None, least: int = 480
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """A small photo and what was found in it, each pixel repeated, so that words fit beside boxes.

    Args:
        photo: RGB uint8 (H, W, 3).
        boxes: x1, y1, x2, y2 in pixels (n, 4).
        masks: Bool (n, H, W), or None.
        least: Pixels of the longer side that are enough.
    """
    times = -(-least // max(photo.shape[:2]))
    if times <= 1:
        return photo, boxes, masks
    large = photo.repeat(times, axis=0).repeat(times, axis=1)
    if masks is not None:
        masks = masks.repeat(times, axis=1).repeat(times, axis=2)
    return large, boxes * times, masks
