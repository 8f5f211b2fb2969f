"""Each of two ranks continues exactly: with its own random state, not that of another."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.model import is_model_wrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmclipdis.apis.run import prepare_cpu_processes
from tests.engine.toy import ToyModel, toy_config, train
from tests.ranks import run_ranks

HALF, ALL = 3, 6


@MODELS.register_module()
class DrawingModel(ToyModel):
    """Keeps the numbers that a training step draws, one from each generator, and learns by them."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[float, float, float]] = []
        self.noise: list[float] = []

    def forward(self, inputs: Any, data_samples: Any, mode: str = "tensor") -> Any:
        output = super().forward(inputs, data_samples, mode)
        if mode == "loss":
            pairs = zip(inputs, data_samples, strict=True)
            self.noise += [round(float(x[0]) - sample.target, 4) for x, sample in pairs]
            self.drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
            output["loss"] = output["loss"] * sum(self.drawn[-1])
        return output


def train_here(
    work_dir: Path,
    iterations: int,
    resume: bool = False,
    seeds_differ: bool = True,
    workers: int = 0,
) -> dict[str, Any]:
    """Train up to an iteration, and tell what this rank has drawn, seen and learnt."""
    config = toy_config(work_dir, launcher="pytorch", resume=resume)
    config.merge_from_dict(
        {
            "model.type": "DrawingModel",
            "randomness.diff_rank_seed": seeds_differ,  # the ranks draw different numbers
            "train_dataloader.num_workers": workers,
            "train_cfg.max_iters": iterations,
            "train_cfg.val_interval": 2,  # validation draws, too
            "default_hooks.checkpoint.interval": HALF,
        }
    )
    prepare_cpu_processes(config)
    run: Runner = train(config)
    assert is_model_wrapper(run.model) and run.iter == iterations
    training = run.model.module
    return {
        "drawn": training.drawn,
        "seen": training.seen,
        "noise": training.noise,
        # no buffers: BatchNorm's averages differ between the ranks, and rank 0's are saved
        "weights": torch.cat([p.detach().flatten() for p in training.parameters()]),
        "numpy": run.final_state["numpy"][1],
        "torch": run.final_state["torch"],
        "python": run.final_state["python"][1],
    }


def whole_and_in_parts(rank: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    whole = train_here(folder / "whole", ALL)
    train_here(folder / "parts", HALF)
    return whole, train_here(folder / "parts", ALL, resume=True)


def test_two_resumed_ranks_draw_and_learn_what_uninterrupted_ones_do(tmp_path: Path) -> None:
    ranks = run_ranks(whole_and_in_parts, 2, tmp_path)
    for whole, resumed in ranks:
        assert len(resumed["drawn"]) == ALL - HALF
        assert resumed["drawn"] == whole["drawn"][HALF:]
        assert resumed["seen"] == whole["seen"][-len(resumed["seen"]) :]
        for name in ("weights", "numpy", "torch", "python"):
            assert torch.equal(whole[name], resumed[name]), name
    (first, _), (second, _) = ranks
    numbers = [{x for step in whole["drawn"] for x in step} for whole in (first, second)]
    assert not numbers[0] & numbers[1]  # or else rank 0's state would do for both
    assert torch.equal(first["weights"], second["weights"])


def one_seed(rank: int, folder: Path) -> list[list[float]]:
    """What the images of a rank are disturbed by, loaded by itself and by a worker."""
    return [train_here(folder / str(n), 2, seeds_differ=False, workers=n)["noise"] for n in (0, 1)]


def test_ranks_with_one_seed_augment_differently(tmp_path: Path) -> None:
    ranks = run_ranks(one_seed, 2, tmp_path)
    for first, second in zip(*ranks, strict=True):
        assert len(first) == len(second) == 6
        assert not set(first) & set(second)
    assert ranks[0][0] == ranks[0][1]
