"""A config's miniature: the same code on a few generated photos, with tiny random weights.

It shows that every part of a measurement runs, from files in the layout of the original data and
weights to the metric. Its numbers mean nothing.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmclipdis.apis.reproduction.miniature_loaders import shrink_loaders
from mmclipdis.apis.reproduction.miniature_model import shrink_model
from mmclipdis.apis.reproduction.miniature_towers import seeded
from mmclipdis.engine.foreign_checkpoint_guard import check_trained
from mmclipdis.engine.random_weights import check_weights
from mmclipdis.utils.whole_files import make_folder, whole_file, write_text

#: What every number of a miniature is of.
LABEL = "random weights, generated data"
#: Batches of a training.
_BATCHES = 2
_LOADERS = {"train": ("train_dataloader", "val_dataloader"), "test": ("test_dataloader",)}
#: What a test does not look at.
_OF_TRAINING = ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler")
_OF_VALIDATION = ("val_dataloader", "val_evaluator", "val_cfg")


def miniature(config: Config, root: Path, *, training: bool = False, seed: int = 0) -> Path:
    """Write the miniature of a config: data, weights, and a config for the tools.

    The config is that of ``tools/test.py``, or of ``tools/train.py`` with ``training``. A model
    that must have been trained gets a checkpoint of random weights as ``load_from``; a checkpoint
    that the tool is given goes before it. A training is two batches of two photos and a validation.
    What a miniature trains fits the miniatures of the configs that test it. Equal calls write equal
    files, and files of weights that are there are kept.

    Args:
        config: A config of this repository, options of the command line already in it.
        root: Folder for everything; miniatures may share one.
        training: Make what is trained, not what is tested.
        seed: Of pictures and labels.

    Returns:
        The config file, ``root/configs/NAME.py`` or ``NAME_train.py``.

    Raises:
        ValueError: the config has no model, data set or part of a kind that has a miniature.
    """
    kind = "train" if training else "test"
    lacking = [key for key in ("model", f"{kind}_dataloader") if not config.get(key)]
    if lacking:
        raise ValueError(f"no miniature of {config.filename}: it has no {' and no '.join(lacking)}")
    small = Config(copy.deepcopy(config.to_dict()))
    name = Path(config.filename or "config").stem + "_train" * training
    scope = small.get("default_scope") or "mmengine"
    shrink_loaders(small, _LOADERS[kind], root, seed)
    shrink_model(small.model, root / "weights")
    if training:
        _shorten_training(small)
        small.pop("test_dataloader", None)
        small.pop("test_evaluator", None)
        small.pop("test_cfg", None)
    else:
        for key in (*_OF_TRAINING, *_OF_VALIDATION):
            small.pop(key, None)
        small.load_from = _checkpoint(small, root / "weights" / f"{name}.pth", scope)
    path = root / "configs" / f"{name}.py"
    make_folder(path.parent)
    write_text(path, as_python(small, f"{LABEL}: no number of this config means anything"))
    return path


def as_python(config: Config, comment: str) -> str:
    """A config as Python, a line an entry; mmengine's own layout takes a second."""
    entries = config.to_dict().items()
    return f"# {comment}\n" + "".join(f"{key} = {value!r}\n" for key, value in entries)


def _shorten_training(config: Config) -> None:
    loop = config.train_cfg
    if "max_iters" in loop:
        loop.update(max_iters=_BATCHES, val_interval=_BATCHES)
    else:
        schedules = config.get("param_scheduler") or []
        later = [each.get("begin", 0) for each in schedules if each.get("by_epoch", True)]
        epochs = 1 + max(later, default=0)  # each part of the schedule has an epoch
        loop.update(max_epochs=epochs, val_interval=epochs)
        if "val_begin" in loop:
            loop.val_begin = 1
    hooks = config.get("default_hooks") or {}
    if hooks.get("logger"):
        hooks["logger"]["interval"] = 1


def _checkpoint(config: Config, path: Path, scope: str) -> str | None:
    """A checkpoint of random weights for a model that must have been trained."""
    with DefaultScope.overwrite_default_scope(scope), seeded(path.stem):
        model: Any = MODELS.build(config.model)
        try:
            check_trained(model)
            check_weights(model)
            return None
        except (ValueError, RuntimeError):
            model.init_weights()  # mmdet leaves parts of its DINO without any values
    with whole_file(path) as file:
        torch.save({"state_dict": model.state_dict(), "meta": {}}, file)
    return str(path)
