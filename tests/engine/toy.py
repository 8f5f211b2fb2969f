"""A tiny random segmentation task for tests of the training machinery."""

from __future__ import annotations

import copy
import random
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmclipdis.engine.random_state import get_random_state


@DATASETS.register_module()
class ToyDataset(BaseDataset):
    """Points of a random walk; augmented by all three generators, as real pipelines are."""

    METAINFO = {"classes": ("a", "b"), "palette": [[0, 0, 0], [255, 255, 255]]}

    def __init__(self, length: int = 12, nan_at: int = -1) -> None:
        self.length, self.nan_at = length, nan_at
        super().__init__()

    def load_data_list(self) -> list[dict[str, Any]]:
        return [{"value": float(index)} for index in range(self.length)]

    def prepare_data(self, idx: int) -> dict[str, Any]:
        info = self.get_data_info(idx)
        noise = random.random() + np.random.rand() + float(torch.rand(()))
        value = float("nan") if idx == self.nan_at else info["value"] / self.length
        inputs = torch.full((4,), value) + noise
        return {"inputs": inputs, "data_samples": ToySample(f"{idx}.png", value, idx)}


class ToySample:
    def __init__(self, img_path: str, target: float, index: int) -> None:
        self.img_path, self.target, self.index = img_path, target, index


@MODELS.register_module()
class ToyModel(BaseModel):
    """Dropout makes training depend on the model's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)
        )
        self.seen: list[float] = []

    def forward(
        self, inputs: Tensor | list[Tensor], data_samples: list[ToySample], mode: str = "tensor"
    ) -> Any:
        inputs = torch.stack(list(inputs))
        self.seen.extend(round(float(x), 6) for x in inputs[:, 0])
        output = self.net(inputs)[:, 0]
        if mode == "loss":
            target = torch.tensor([sample.target for sample in data_samples])
            return {"loss": ((output - target) ** 2).mean() + 0.1 * torch.rand(()) * output.mean()}
        return [float(x) + float(torch.rand(())) for x in output]


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        calls = getattr(self, "calls", 0) + 1
        self.calls = calls
        return {"acc": float(calls)}  # rises, so that each validation is the best one


def toy_config(work_dir: Path, **changes: Any) -> Config:
    loader = {
        "batch_size": 3,
        "num_workers": 0,
        "sampler": {"type": "InfiniteSampler", "shuffle": True},
        "dataset": {"type": "ToyDataset"},
    }
    validation = {**copy.deepcopy(loader), "sampler": {"type": "DefaultSampler", "shuffle": False}}
    config = Config(
        {
            "default_scope": "mmengine",
            "custom_imports": {"imports": ["mmclipdis", "tests.engine.toy"]},
            "model": {"type": "ToyModel"},
            "train_dataloader": loader,
            "val_dataloader": validation,
            "val_evaluator": {"type": "ToyMetric"},
            "train_cfg": {"type": "ExactIterBasedTrainLoop", "max_iters": 20, "val_interval": 5},
            "val_cfg": {"type": "ValLoop"},
            "optim_wrapper": {
                "type": "OptimWrapper",
                "optimizer": {"type": "AdamW", "lr": 0.01},
                "clip_grad": {"max_norm": 1.0},
            },
            "param_scheduler": [
                {"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": 5, "by_epoch": False},
                {"type": "PolyLR", "begin": 5, "end": 20, "by_epoch": False},
            ],
            "default_hooks": {
                "checkpoint": {"type": "ExactCheckpointHook", "by_epoch": False, "interval": 10}
            },
            "work_dir": str(work_dir),
            "randomness": {"seed": 3},
            "log_level": "WARNING",
            "experiment_name": work_dir.name + uuid.uuid4().hex,
        }
    )
    for key, value in changes.items():
        if "." in key:
            config.merge_from_dict({key: value})
        else:
            config[key] = value  # replaced, not merged
    return config


def train(config: Config) -> Runner:
    """Train from a config; the random state at the end is kept as ``final_state``."""
    runner = Runner.from_cfg(config)
    runner.train()
    runner.final_state = get_random_state()
    return runner


def weights(runner: Runner) -> Tensor:
    return torch.cat([x.detach().double().flatten() for x in runner.model.state_dict().values()])
