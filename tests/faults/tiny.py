"""The smallest runs that meet a data set: a model that knows nothing, mmengine's own Runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from PIL import Image

STEPS = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "PackSegInputs"},
]


class Knowing(BaseModel):
    """Predicts the labels; has one weight, which learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        """The loss, or the samples with their own labels as predictions."""
        if mode == "loss":
            return {"loss": self.weight**2}
        for sample in data_samples or ():
            if "gt_sem_seg" in sample:
                found = sample.gt_sem_seg.data.clone().clamp(max=1)
                sample.pred_sem_seg = PixelData(data=found)
        return data_samples


def runner(
    work_dir: Path,
    dataset: Mapping[str, Any],
    *,
    train: bool = False,
    scope: str = "mmseg",
    evaluator: Any = None,
    hook: str = "DataCheckHook",
    iters: int = 1,
    **options: Any,
) -> Runner:
    """A runner of one data set with one of our hooks; ``train`` or else test."""
    init_default_scope(scope)
    loader = {
        "batch_size": 1,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": dict(dataset),
    }
    settings: dict[str, Any] = {"custom_hooks": [{"type": hook}], "default_scope": scope, **options}
    if train:
        settings |= {
            "train_dataloader": loader,
            "train_cfg": {"by_epoch": False, "max_iters": iters},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
        }
    else:
        settings |= {
            "test_dataloader": loader,
            "test_cfg": {"type": "TestLoop"},
            "test_evaluator": evaluator or {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        }
    name = f"tiny-{work_dir.name}-{len(list(work_dir.iterdir()))}"
    return Runner(
        Knowing(), str(work_dir / "run"), experiment_name=name, log_level="WARNING", **settings
    )


def masks(
    folder: Path,
    labels: Sequence[Any] = ([[0, 1], [1, 0]],),
    photo_suffix: str = ".jpg",
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Write photos and label maps; the options of a ``BaseSegDataset`` of the classes sky, car.

    Args:
        folder: To write to, ``img`` and ``ann`` below it.
        labels: One map a photo, (H, W) or (H, W, 3), uint8.
        photo_suffix: Of the photos.
        size: (height, width) of the photos; None: that of their maps.
    """
    for name in ("img", "ann"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(labels):
        values = np.asarray(one, dtype=np.uint8)
        shape = (*(size or values.shape[:2]), 3)
        Image.fromarray(np.full(shape, 99, np.uint8)).save(folder / f"img/{number}{photo_suffix}")
        Image.fromarray(values).save(folder / f"ann/{number}.png")
    return {
        "type": "BaseSegDataset",
        "data_root": str(folder),
        "data_prefix": {"img_path": "img", "seg_map_path": "ann"},
        "metainfo": {"classes": ("sky", "car")},
        "pipeline": STEPS,
    }
