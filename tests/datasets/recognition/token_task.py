"""Small images with labels in COCO's layout, and a config that trains a tiny DCLIP on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, OPTIM_WRAPPERS, TRANSFORMS
from torch import nn

from mmclipdis.datasets.recognition.transforms import PackMultiLabelInputs
from tests.models.recognition.tiny_dclip import config as tiny_dclip
from tests.paths import ROOT

CLASSES = ("cat", "dog", "mug")

CONFIG = """
_base_ = ["{root}/configs/_base_/mmengine_runtime.py"]
custom_imports = dict(imports=["mmclipdis", "tests.datasets.recognition.token_task"])
model = {model}
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 64), keep_ratio=False),
    dict(type="PackMultiLabelInputs"),
]
dataset = dict(
    type="CocoMultiLabelDataset",
    data_root="{data}",
    ann_file="labels.json",
    data_prefix=dict(img_path="images"),
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dataset, sampler=dict(type="DefaultSampler", shuffle=True)
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05, momentum=0.9))
train_cfg = dict(by_epoch=True, max_epochs=2)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_level = "WARNING"
"""


def write_task(folder: Path, count: int = 11) -> Path:
    """Write images of several sizes, their labels and the config; return the config."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images, notes = [], []
    for index in range(count):
        size = (int(rng.integers(20, 60)), int(rng.integers(20, 60)))
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), pixels)
        images.append({"id": index, "file_name": f"{index}.png", "height": size[0]})
        for label in {index % 3, int(rng.integers(3))}:
            notes.append({"id": len(notes), "image_id": index, "category_id": label + 1})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": notes, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(content))
    model = dict(type="DCLIP", **tiny_dclip(vocabulary="dataset"))
    (folder / "tiny.py").write_text(CONFIG.format(root=ROOT, data=folder, model=model))
    return folder / "tiny.py"


@MODELS.register_module(force=True)
class NoTokens(BaseModel):
    """A model of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(1, 1)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        raise NotImplementedError


@MODELS.register_module(force=True)
class TrainedTokens(NoTokens):
    """One whose tower learns."""

    def tokens(self, images: Any) -> Any:
        return self.encoder(images)


@TRANSFORMS.register_module(force=True)
class PrivateNoise(BaseTransform):
    """Noise from a generator of its own, which the state of the global ones does not show."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        noise = np.random.default_rng().integers(0, 9, results["img"].shape, dtype=np.uint8)
        results["img"] = results["img"] // 2 + noise
        return results


@TRANSFORMS.register_module(force=True)
class PackOtherwise(PackMultiLabelInputs):
    """A packing of the user's own."""


@TRANSFORMS.register_module(force=True)
class SpoiltImage(BaseTransform):
    """Makes one image nan, from pixels in floats."""

    def __init__(self, name: str) -> None:
        self.name = name

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results["img"] = results["img"].astype(np.float32)
        if Path(results["img_path"]).name == self.name:
            results["img"][:] = np.nan
        return results


@OPTIM_WRAPPERS.register_module(force=True)
class Bfloat16Wrapper(OptimWrapper):
    """Mixed precision on a CPU, which ``AmpOptimWrapper`` does not run on."""

    cast_dtype = "bfloat16"

    @contextmanager
    def optim_context(self, model: Any) -> Iterator[None]:
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield
