"""What the two pretrainings of ShapeScenes share: optimiser, rate, and a checkpoint to resume.

A recipe is a dataclass with ``lr``, ``weight_decay``, ``warmup`` and ``steps`` among its fields.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmclipdis.engine.checkpoint_io import write_checkpoint


def adamw(parameters: Iterable[nn.Parameter], recipe: Any) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves vectors alone."""
    parameters = list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )


def learning_rate(step: int, recipe: Any) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < recipe.warmup:
        return float(recipe.lr * (step + 1) / recipe.warmup)
    progress = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return float(recipe.lr * 0.5 * (1 + math.cos(math.pi * progress)))


def save_run(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Any,
    step: int,
    **more: Any,
) -> None:
    """Write ``folder/last.pt`` in one step: a run that is killed leaves the old one."""
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "recipe": json.dumps(asdict(recipe)),
        "step": step,
        **more,
    }
    write_checkpoint(folder / "last.pt", state)


def resume_run(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, recipe: Any
) -> int:
    """Read ``folder/last.pt`` and return the steps done, 0 if there is no such file.

    Raises:
        ValueError: it was made by another recipe.
    """
    path = folder / "last.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if json.loads(state["recipe"]) != json.loads(json.dumps(asdict(recipe))):
        raise ValueError(
            f"{path} was made by another recipe ({state['recipe']}); "
            "give its settings, or name another work folder"
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
