"""What the two pretrainings of ShapeScenes share: optimiser, rate, and a checkpoint to resume.

A recipe is a dataclass with ``lr``, ``weight_decay``, ``warmup`` and ``steps`` among its fields.

The loops stay in plain PyTorch, without mmengine's runner: a step is a function of the seed and its
number alone, and what a runner would add (loaders, hooks, logs) is more than the loop is.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from mmclipdis.engine.checkpoint_io import read_checkpoint, write_checkpoint

AnyRecipe = TypeVar("AnyRecipe")


def add_recipe(parser: argparse.ArgumentParser, recipe: type) -> None:
    """Add an option for every field of a recipe, which is a dataclass with defaults."""
    for field in fields(recipe):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default)


def recipe_of(args: argparse.Namespace, recipe: type[AnyRecipe]) -> AnyRecipe:
    """The recipe that the options of :func:`add_recipe` ask for."""
    return recipe(**{field.name: getattr(args, field.name) for field in fields(recipe)})  # type: ignore[arg-type]


def adamw(model: nn.Module, recipe: Any) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves vectors alone."""
    groups = param_groups_weight_decay(model, recipe.weight_decay)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))


def learning_rate(step: int, recipe: Any) -> float:
    """Linear warm-up, then half a cosine to zero.

    timm's ``CosineLRScheduler`` counts the warm-up from 0: up to 0.5 % off what the shipped weights
    were trained with.
    """
    if step < recipe.warmup:
        return float(recipe.lr * (step + 1) / recipe.warmup)
    progress = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return float(recipe.lr * 0.5 * (1 + math.cos(math.pi * progress)))


def clipped_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, loss: torch.Tensor, step: int
) -> None:
    """Step on gradients clipped to the norm 1, unless the loss or they are not finite.

    The weights stay as they were then, and so does the checkpoint before.

    Raises:
        ValueError: naming the step and what is not finite.
    """
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for name, value in (("loss", loss), ("norm of the gradients", norm)):
        if not math.isfinite(value.item()):
            raise ValueError(
                f"the {name} is {value.item()} at step {step}; the checkpoint before is kept: "
                "start again from it with a lower rate"
            )
    optimiser.step()


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
        ValueError: it was made by another recipe, or cannot be read.
    """
    path = folder / "last.pt"
    if not path.exists():
        return 0
    state = read_checkpoint(path)
    if json.loads(state["recipe"]) != json.loads(json.dumps(asdict(recipe))):
        raise ValueError(
            f"{path} was made by another recipe ({state['recipe']}); "
            "give its settings, or name another work folder"
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
