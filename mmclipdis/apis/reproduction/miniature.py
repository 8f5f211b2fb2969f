"""A config's miniature: the same code on a few generated photos, with tiny random weights.

It shows that every part of a measurement runs, from files in the layout of the original data and
weights to the metric. Its numbers mean nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmclipdis.apis.reproduction.miniature_data import write_data
from mmclipdis.apis.reproduction.miniature_model import parts, scale_of, shrink_model
from mmclipdis.apis.reproduction.miniature_towers import Scale, seeded
from mmclipdis.clip.weights.vfm import VFMS
from mmclipdis.engine.foreign_checkpoint_guard import check_trained
from mmclipdis.utils.whole_files import make_folder, whole_file, write_text

#: What every number of a miniature is of.
LABEL = "random weights, generated data"
#: Photos of a batch, and batches of a training.
_BATCH, _BATCHES = 2, 2
_LOADERS = {"train": ("train_dataloader", "val_dataloader"), "test": ("test_dataloader",)}
#: Options of transforms that are sides in pixels, or pairs or lists of them.
_SIDES = ("scale", "scales", "size", "crop_size", "max_size")
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
    scale, teachers = scale_of(small.model), _teachers(small.model)
    shrink_model(small.model, root / "weights")
    masks = _place_masks(small.model, root)
    for loader in _LOADERS[kind]:
        if small.get(loader):
            _shrink_loader(small[loader], scale, teachers)
            _write_loader(small, loader, root, scope, seed, masks)
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


def _teachers(model: Any) -> list[int]:
    """Patches of the vision models that a student is distilled from."""
    return [VFMS[vfm["model"]].patch_size for vfm in model.get("vfms", ())]


def _place_masks(model: Any, root: Path) -> Path | None:
    """The folder that a model reads masks from, in place of the one it named."""
    masks = model.get("masks")
    if not isinstance(masks, Mapping) or masks.get("type") != "MaskFolder":
        return None
    masks["root"] = str(root / "masks")  # type: ignore[index]
    return root / "masks"


def _shrink_loader(loader: Any, scale: Scale, teachers: list[int]) -> None:
    loader.update(num_workers=0, persistent_workers=False)
    loader.batch_size = min(loader.get("batch_size", 1), _BATCH)
    for step in parts(loader.dataset.get("pipeline", [])):
        if step.get("type") == "DistillViews":
            tokens = scale.side(step["size"], least=2) // scale.patch
            step["proxy_sizes"] = tuple(dict.fromkeys(tokens * side for side in teachers))
        for key in _SIDES:
            if key in step:
                step[key] = scale.sides(step[key], least=2)


def _write_loader(
    config: Config, name: str, root: Path, scope: str, seed: int, masks: Path | None
) -> None:
    """Write the data of a loader below ``root/data``, and point loader and evaluator there."""
    dataset = config[name].dataset
    old = str(dataset.get("data_root") or "")
    place = PurePath(old)
    below = PurePath(place.name) if place.is_absolute() else place
    new = root / "data" / PurePath(*(part for part in below.parts if part not in ("data", "..")))
    dataset.data_root = f"{new}/"
    write_data(dataset, new, scope, seed, masks)
    evaluator = config.get(name.replace("dataloader", "evaluator"))
    for node in parts(evaluator):
        given = node.get("ann_file")
        if isinstance(given, str) and given.startswith(old):
            node["ann_file"] = str(new / given[len(old) :])


def _shorten_training(config: Config) -> None:
    loop = config.train_cfg
    if "max_iters" in loop:
        loop.update(max_iters=_BATCHES, val_interval=_BATCHES)
    else:
        loop.update(max_epochs=1, val_interval=1)
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
        except ValueError:
            model.init_weights()  # mmdet leaves parts of its DINO without any values
        else:
            return None
    with whole_file(path) as file:
        torch.save({"state_dict": model.state_dict(), "meta": {}}, file)
    return str(path)
