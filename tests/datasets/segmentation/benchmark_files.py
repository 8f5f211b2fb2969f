"""The six benchmarks of CAT-Seg as their converters leave them, one or two photos each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

IGNORED = 65535


@dataclass(frozen=True)
class Miniature:
    """Where a benchmark keeps what, below its ``data_root``."""

    images: str
    labels: str
    split: str = ""
    names: str = ""
    classes: int = 0
    bits: int = 8

    def write(self, root: Path, labels: dict[str, list[list[int]] | np.ndarray]) -> Path:
        """Write photos of noise and these label maps, each under its name; return ``root``."""
        generator = np.random.default_rng(0)
        for folder in (self.images, self.labels):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for name, label in labels.items():
            array = np.array(label, dtype=f"uint{self.bits}")
            photo = generator.integers(0, 256, (*array.shape, 3), dtype=np.uint8)
            Image.fromarray(photo).save(root / self.images / f"{name}.jpg")
            suffix = ".tif" if self.bits == 16 else ".png"
            Image.fromarray(array).save(root / self.labels / f"{name}{suffix}")
        if self.split:
            (root / self.split).parent.mkdir(parents=True, exist_ok=True)
            (root / self.split).write_text("".join(f"{name}\n" for name in labels))
        if self.names:
            lines = [f"class {i}, synonym {i}" for i in range(self.classes)]
            (root / self.names).write_text("\n".join(lines) + "\n")
        return root


CONTEXT = "ImageSets/SegmentationContext"
VOC = Miniature("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/val.txt")
BENCHMARKS = {
    "a847": Miniature(
        *("images/validation", "annotations/validation"),
        names="classes.txt",
        classes=847,
        bits=16,
    ),
    "pc459": Miniature(
        *("JPEGImages", "SegmentationClassContext459", f"{CONTEXT}/val_459.txt"),
        names="SegmentationClassContext459/classes.txt",
        classes=459,
        bits=16,
    ),
    "a150": Miniature("images/validation", "annotations/validation"),
    "pc59": Miniature("JPEGImages", "SegmentationClassContext", f"{CONTEXT}/val.txt"),
    "pas20": VOC,
    "pas20b": VOC,
}
