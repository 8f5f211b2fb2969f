"""Photos on disk for the tests of the distillation data, good and broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmclipdis.datasets.distillation import images as distill_images  # noqa: F401


def pixels(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    return Image.fromarray(pixels(width, height, seed))


def write_photos(folder: Path, count: int, suffix: str = ".png") -> list[Path]:
    """``count`` different photos of different sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}{suffix}" for number in range(count)]
    for number, path in enumerate(paths):
        photo(60 + number, 50 - number % 10, number).save(path)
    return paths


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def pipeline(size: int = 32, proxy: int = 28, crop: int = 16) -> list[dict[str, Any]]:
    return [
        dict(type="LoadPILImage"),
        dict(type="DistillViews", size=size, proxy_sizes=(proxy,)),
        dict(type="GridCrops", crop_size=crop),
        dict(type="PackDistillInputs"),
    ]
